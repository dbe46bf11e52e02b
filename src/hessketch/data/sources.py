"""Raw images and labels, read by torchvision's and scikit-learn's own readers, checked against what they must hold."""

import contextlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor

from hessketch.data.catalog import Dataset, describe, is_system_folder, local_files, require_raw_file
from hessketch.data.integrity import unpublished_files
from hessketch.data.subsets import balanced_subset
from hessketch.data.torchvision_import import import_torchvision
from hessketch.errors import InputError
from hessketch.extensions import call_with, registered
from hessketch.progress import note

Raw = dict[str, tuple[Tensor, Tensor]]

_DIGITS_SPLIT_SEED = 0
_READER_CLASSES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
_FAILED_DOWNLOADS = (OSError, EOFError, zlib.error, tarfile.TarError, HTTPException, RuntimeError)  # URLError: OSError
_UNREADABLE = (OSError, EOFError, zlib.error, AssertionError, ValueError, TypeError, RuntimeError, KeyError)


def read_raw(name: str, folder: str | Path, download: bool = False) -> Raw:
    """`train` and `test`, each with images (n, channels, side, side) uint8 and labels (n,) int64.

    Of a derived data set these are its base's: `prepared` takes the part.
    Takes the files that `local_files` finds. If there are none and `download` is set, torchvision downloads them
    into `folder`, in its own layout. `digits` comes with scikit-learn; a registered data set is read by its own
    function, vectors as (n, d) float32. Nothing is written without a download.
    Files of other content than the published ones are noted (`progress.note`), CIFAR's, which are pickles, refused.
    Raises InputError for an unknown name, missing, damaged or foreign files, and a download that fails.
    """
    dataset = describe(describe(name).base)
    name = dataset.name
    if name == "digits":
        return _check(_read_digits(dataset), dataset, "scikit-learn's digits")
    if name in registered("dataset"):
        return _check(_read_registered(name, Path(folder)), dataset, f"data set {name!r}")
    if name not in _READER_CLASSES:
        raise InputError(f"{name} has no raw files; allowed: digits, {', '.join(_READER_CLASSES)}")
    found = local_files(name, folder) or _download(dataset, Path(folder), download)
    read = _read_cifar if name.startswith("cifar") else _read_idx
    raw = _check(read(dataset, found), dataset, str(found))
    for line in unpublished_files(name, found):
        note(line)
    return raw


def _reader_class(name: str):
    return getattr(import_torchvision().datasets, _READER_CLASSES[name])


def _download(dataset: Dataset, folder: Path, allowed: bool) -> Path:
    missing = f"{folder} does not hold the files of {dataset.name}, all expected there: {', '.join(dataset.files)}"
    remedy = f"put the files into {folder}, or allow the download where {dataset.download_host} can be reached"
    if not allowed:
        raise InputError(f"{missing}; a download was not allowed; {remedy}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _reader_class(dataset.name)(root=str(folder), download=True)
    except _FAILED_DOWNLOADS as error:
        reason = " ".join(str(error).split())  # torchvision's text has a line for each mirror
        raise InputError(f"{missing}; the download failed ({reason}); {remedy}") from error
    found = local_files(dataset.name, folder)
    if found is None:
        raise InputError(f"{missing}; the download did not bring them; {remedy}")
    return found


def _damaged(path: Path, error: object) -> InputError:
    if is_system_folder(path.parent):
        remedy = "reinstall the system package that holds it"
    else:
        remedy = "replace it, or delete it and run again: it will be downloaded anew"
    reason = str(error) or type(error).__name__  # torchvision's assertions carry no text
    return InputError(f"{path}: cannot be read, it is damaged or cut short ({reason}); {remedy}")


def _read_idx(dataset: Dataset, folder: Path) -> Raw:
    """MNIST's format. Gzipped files are unpacked into a temporary folder: torchvision reads only plain ones."""
    from_images, from_labels = _idx_readers()
    raw = {}
    with tempfile.TemporaryDirectory() as temporary:
        for split, prefix in (("train", "train"), ("test", "t10k")):
            images = _read_idx_file(folder, f"{prefix}-images-idx3-ubyte", Path(temporary), from_images)
            labels = _read_idx_file(folder, f"{prefix}-labels-idx1-ubyte", Path(temporary), from_labels)
            raw[split] = (images.unsqueeze(1), labels)
    return raw


def _idx_readers():
    mnist = import_torchvision().datasets.mnist
    return mnist.read_image_file, mnist.read_label_file


def _read_idx_file(folder: Path, file: str, temporary: Path, read) -> Tensor:
    path = require_raw_file(folder, file)
    try:
        plain = path
        if path.suffix == ".gz":
            plain = temporary / file
            import_torchvision().datasets.utils.extract_archive(str(path), str(temporary))
        return read(str(plain))
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def _read_cifar(dataset: Dataset, folder: Path) -> Raw:
    """CIFAR's pickles, unpickled only after each has the digest that torchvision knows."""
    reader = _reader_class(dataset.name)
    digests = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
    for file, digest in digests:
        if not import_torchvision().datasets.utils.check_integrity(folder / file, digest):
            raise _damaged(folder / file, f"its MD5 digest is not {digest}")
    raw = {}
    with _as_torchvision_lays_it_out(folder, reader.base_folder) as root:
        for split in ("train", "test"):
            data = reader(root=str(root), train=split == "train")
            images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
            raw[split] = (images, torch.tensor(data.targets))
    return raw


@contextlib.contextmanager
def _as_torchvision_lays_it_out(folder: Path, base: str) -> Iterator[Path]:
    """A root in which `base` is `folder`, whatever the folder's own name is."""
    with tempfile.TemporaryDirectory() as temporary:
        os.symlink(folder.resolve(), Path(temporary) / base, target_is_directory=True)
        yield Path(temporary)


def _read_digits(dataset: Dataset) -> Raw:
    """Scikit-learn's 8x8 digits; a fixed 50 of each class are the test set."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)  # values were 0 ... 16
    labels = torch.from_numpy(digits.target).long()
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[balanced_subset(labels, min(dataset.test_per_class), _DIGITS_SPLIT_SEED)] = True
    return {"train": (images[~test], labels[~test]), "test": (images[test], labels[test])}


def _read_registered(name: str, folder: Path) -> Raw:
    """What the user's function gives, as tensors of the right types."""
    _, read = registered("dataset")[name]
    raw = call_with(read, {"folder": folder})
    kind = torch.uint8 if describe(name).channels else torch.float32
    found = {}
    what = f"data set {name!r}: its function gave"
    for split in ("train", "test"):
        try:
            inputs, labels = map(torch.as_tensor, raw[split])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{what} no inputs and labels of {split} ({error})") from None
        if inputs.dtype != kind or labels.dtype != torch.int64 or labels.ndim != 1 or (labels < 0).any():
            raise InputError(
                f"{what} {split} inputs of {inputs.dtype} and labels {tuple(labels.shape)} of {labels.dtype}; "
                f"allowed: {kind} (images uint8, vectors float32), and (n,) int64 from 0"
            )
        if not inputs.isfinite().all():
            raise InputError(f"data set {name!r}: its {split} inputs hold NaN or infinity")
        found[split] = (inputs, labels)
    return found


def _check(raw: Raw, dataset: Dataset, origin: str) -> Raw:
    """Shapes, label range and the number of examples of each class: files of another data set do not pass."""
    shape = (dataset.channels, dataset.side, dataset.side) if dataset.channels else (dataset.side,)
    for split, expected in (("train", dataset.train_per_class), ("test", dataset.test_per_class)):
        images, labels = raw[split]
        counts = torch.bincount(labels, minlength=dataset.classes).tolist()
        if tuple(images.shape[1:]) != shape or len(images) != len(labels) or tuple(counts) != expected:
            raise InputError(
                f"{origin}: the {split} files hold {len(images)} images of shape {tuple(images.shape[1:])} and "
                f"{len(labels)} labels, by class {counts}; expected {sum(expected)} of shape {shape}, by class "
                f"{list(expected)}; they are not {dataset.name}'s own files: replace them, or move them elsewhere"
            )
    return raw
