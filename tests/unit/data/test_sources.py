"""Raw files are read in every layout and format; damaged, missing and foreign ones are named with what to do."""

import gzip
import hashlib
import io
import os
import pickle
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import numpy
import pytest
import torch
from small_files import write_cifar, write_idx

from hessketch.data import catalog, sources
from hessketch.data.catalog import DATASETS, raw_file
from hessketch.data.integrity import unpublished_files
from hessketch.data.sources import read_raw
from hessketch.data.torchvision_import import import_torchvision
from hessketch.errors import InputError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
TORCHVISION_FOLDERS = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}
TRAIN_IMAGES = "train-images-idx3-ubyte"


def folder_of(layout, name, root):
    return {"torchvision": root / TORCHVISION_FOLDERS[name], "named": root / name, "flat": root}[layout]


def listing(folder):
    """A folder and everything below it with its content and time, to see that nothing was written."""
    paths = [folder, *folder.rglob("*")]
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in paths}


def assert_holds(raw, content):
    assert list(raw) == ["train", "test"]
    for split, (images, labels) in content.items():
        assert (raw[split][0].dtype, raw[split][1].dtype) == (torch.uint8, torch.int64)
        assert numpy.array_equal(raw[split][0].numpy(), images)
        assert numpy.array_equal(raw[split][1].numpy(), labels)


@pytest.mark.parametrize("layout", ["torchvision", "named", "flat"])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_are_read_in_each_layout_and_nothing_is_written(tmp_path, small, name, compressed, layout):
    content = small(name)
    write_idx(folder_of(layout, name, tmp_path), content, compressed)
    before = listing(tmp_path)
    assert_holds(read_raw(name, tmp_path), content)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("layout", ["torchvision", "named", "flat"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_files_are_read_in_each_layout_and_nothing_is_written(tmp_path, small, monkeypatch, name, layout):
    content = small(name)
    write_cifar(folder_of(layout, name, tmp_path), name, content, monkeypatch)
    before = listing(tmp_path)
    assert_holds(read_raw(name, tmp_path), content)
    assert listing(tmp_path) == before


def test_a_relative_folder_is_read_too(tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = small("cifar10")
    write_cifar(Path("data"), "cifar10", content, monkeypatch)
    assert_holds(read_raw("cifar10", "data"), content)


def test_temporary_files_are_gone_after_reading(tmp_path, small, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(sources.tempfile, "tempdir", str(temporary))
    content = small("mnist")
    write_idx(tmp_path / "gz", content, compressed=True)
    assert_holds(read_raw("mnist", tmp_path / "gz"), content)
    content = small("cifar100")
    write_cifar(tmp_path / "cifar", "cifar100", content, monkeypatch)
    assert_holds(read_raw("cifar100", tmp_path / "cifar"), content)
    assert list(temporary.iterdir()) == []


DAMAGES = {
    "empty": lambda data: b"",
    "only the start of a header": lambda data: data[:6],
    "only a header": lambda data: data[:16],
    "cut short": lambda data: data[:-1],
    "too long": lambda data: data + b"\0",
    "signed bytes": lambda data: data[:2] + b"\x09" + data[3:],
    "floats": lambda data: data[:2] + b"\x0d" + data[3:],
    "an unknown type": lambda data: data[:2] + b"\x0a" + data[3:],
    "another number of dimensions": lambda data: data[:3] + b"\x07" + data[4:],
    "a web page": lambda data: b"<!DOCTYPE html><html>not found</html>",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("file", [TRAIN_IMAGES, "t10k-labels-idx1-ubyte"])
def test_a_damaged_idx_file_is_named_with_what_to_do(tmp_path, small, file, damage):
    write_idx(tmp_path, small("mnist"))
    path = tmp_path / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"damaged or cut short \(.+\); replace it, or delete it") as caught:
        read_raw("mnist", tmp_path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("kept", [0, 5, 100, -4, -1])
def test_a_truncated_gzip_is_named_with_what_to_do(tmp_path, small, kept):
    write_idx(tmp_path, small("mnist"), compressed=True)
    path = tmp_path / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"damaged or cut short \(.+\); replace it, or delete it") as caught:
        read_raw("mnist", tmp_path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_gzip_with_a_flipped_bit_or_of_another_format_is_damaged(tmp_path, small):
    write_idx(tmp_path, small("mnist"), compressed=True)
    path = tmp_path / f"{TRAIN_IMAGES}.gz"
    data = path.read_bytes()
    half = len(data) // 2
    flipped = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
    no_deflate = data[:10] + b"\xff" * 8 + data[18:]  # a good gzip header, then no known kind of block
    for content in (flipped, no_deflate, b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{path}: cannot be read, it is damaged"):
            read_raw("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "file"), [("cifar10", "data_batch_3"), ("cifar10", "batches.meta"), ("cifar100", "test")]
)
def test_a_damaged_cifar_file_is_named_with_what_to_do(tmp_path, small, monkeypatch, name, file):
    write_cifar(tmp_path, name, small(name), monkeypatch)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"MD5 digest.*replace it, or delete it and run again") as caught:
        read_raw(name, tmp_path)
    assert str(caught.value).startswith(f"{path}: ")


class Bomb:
    """Unpickling an object of this class makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_cifar_file_of_unknown_digest_is_never_unpickled(tmp_path, small, monkeypatch):
    write_cifar(tmp_path, "cifar10", small("cifar10"), monkeypatch)
    (tmp_path / "test_batch").write_bytes(pickle.dumps(Bomb(tmp_path / "burst")))
    with pytest.raises(InputError, match="test_batch"):
        read_raw("cifar10", tmp_path)
    assert not (tmp_path / "burst").exists()


def test_the_published_digests_are_in_force_outside_tests(tmp_path):
    for file in DATASETS["cifar10"].files:
        (tmp_path / file).write_bytes(pickle.dumps({"data": numpy.zeros((1, 3072), numpy.uint8), "labels": [0]}))
    with pytest.raises(InputError, match="its MD5 digest is not c99cafc152244af753f735de768cd75f"):
        read_raw("cifar10", tmp_path)


def test_a_file_of_another_content_than_the_published_one_is_read_and_noted(tmp_path, small, caplog):
    content = small("mnist")
    write_idx(tmp_path, content, compressed=True)
    assert_holds(read_raw("mnist", tmp_path), content)
    assert caplog.text.count("is not the published file of mnist: its SHA-256 is ") == 4


def test_files_of_the_known_content_are_not_noted_packed_or_not(tmp_path, small, monkeypatch):
    content = small("fashion_mnist")
    for folder in ("plain", "packed"):
        write_idx(tmp_path / folder, content, compressed=folder == "packed")
    files = DATASETS["fashion_mnist"].files
    digests = tuple(hashlib.sha256((tmp_path / "plain" / file).read_bytes()).hexdigest() for file in files)
    monkeypatch.setitem(DATASETS, "fashion_mnist", replace(DATASETS["fashion_mnist"], digests=digests))
    for folder in ("plain", "packed"):
        assert unpublished_files("fashion_mnist", tmp_path / folder) == []
        (tmp_path / folder / raw_file(tmp_path / folder, files[1]).name).write_bytes(
            raw_file(tmp_path / folder, files[3]).read_bytes()
        )
        assert [line.split(" is not ")[0] for line in unpublished_files("fashion_mnist", tmp_path / folder)] == [
            str(raw_file(tmp_path / folder, files[1]))
        ]


def test_a_damaged_file_of_a_system_package_is_not_to_be_deleted(tmp_path, small, monkeypatch):
    system = tmp_path / "system"
    write_idx(system, small("fashion_mnist"), compressed=True)
    monkeypatch.setitem(catalog._DEBIAN_FOLDERS, "fashion_mnist", system)
    path = system / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="reinstall the system package") as caught:
        read_raw("fashion_mnist", tmp_path / "user")
    assert "delete" not in str(caught.value)


def test_a_system_folder_is_read_but_never_written_to(tmp_path, small, monkeypatch):
    system, content = tmp_path / "system", small("fashion_mnist")
    write_idx(system, content, compressed=True)
    monkeypatch.setitem(catalog._DEBIAN_FOLDERS, "fashion_mnist", system)
    before = listing(tmp_path)
    assert_holds(read_raw("fashion_mnist", tmp_path / "user", download=True), content)
    assert listing(tmp_path) == before  # neither the system's folder nor the user's


@pytest.mark.parametrize("name", TORCHVISION_FOLDERS)
def test_missing_files_without_a_download_are_named_with_the_folder_and_the_fix(tmp_path, small, name):
    small(name)
    with pytest.raises(InputError) as caught:
        read_raw(name, tmp_path / "data")
    message = str(caught.value)
    assert f"put the files into {tmp_path / 'data'}, or allow the download" in message
    for part in (f"the files of {name}", DATASETS[name].download_host, *DATASETS[name].files):
        assert part in message
    assert not (tmp_path / "data").exists()


def test_one_missing_file_is_no_data_set(tmp_path, small):
    write_idx(tmp_path, small("mnist"))
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=r"does not hold the files of mnist.*t10k-labels-idx1-ubyte"):
        read_raw("mnist", tmp_path)


@pytest.mark.parametrize(
    "error",
    [URLError("Name or service not known"), IncompleteRead(b"", 10), RuntimeError("File not found or corrupted.")],
)
@pytest.mark.parametrize(("name", "module"), [("fashion_mnist", "mnist"), ("cifar100", "cifar")])
def test_a_failed_download_says_why_and_what_to_do(tmp_path, small, monkeypatch, name, module, error):
    def fail(*_, **__):
        raise error

    small(name)
    monkeypatch.setattr(getattr(import_torchvision().datasets, module), "download_and_extract_archive", fail)
    with pytest.raises(InputError, match=r"the download failed.*put the files into") as caught:
        read_raw(name, tmp_path / "data", download=True)
    message = str(caught.value)
    for part in (str(error), str(tmp_path / "data"), DATASETS[name].download_host, *DATASETS[name].files):
        assert part in message


def test_a_folder_that_cannot_be_made_is_a_failed_download(tmp_path, small):
    small("mnist")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="the download failed"):
        read_raw("mnist", tmp_path / "file", download=True)


def test_a_download_into_a_new_folder_is_read_and_kept(tmp_path, small, monkeypatch):
    content, calls = small("mnist"), []

    def download(url, download_root, filename, md5):
        calls.append(url)
        write_idx(Path(download_root), content)

    monkeypatch.setattr(import_torchvision().datasets.mnist, "download_and_extract_archive", download)
    folder = tmp_path / "new/data"
    assert_holds(read_raw("mnist", folder, download=True), content)
    assert [url.split("/")[2] for url in calls] == [DATASETS["mnist"].download_host] * 4
    assert_holds(read_raw("mnist", folder), content)
    read_raw("mnist", folder, download=True)
    assert len(calls) == 4


def test_a_downloaded_cifar_archive_is_read(tmp_path, small, monkeypatch):
    content = small("cifar10")

    def download(url, root, filename, md5):
        write_cifar(Path(root) / TORCHVISION_FOLDERS["cifar10"], "cifar10", content, monkeypatch)

    monkeypatch.setattr(import_torchvision().datasets.cifar, "download_and_extract_archive", download)
    assert_holds(read_raw("cifar10", tmp_path, download=True), content)


def foreign_counts(content):
    content["train"][1][content["train"][1] == 3] = 4


def foreign_label(content):
    content["test"][1][0] = 10


def fewer_labels(content):
    content["test"] = (content["test"][0], content["test"][1][:-1])


def fewer_images(content):
    content["test"] = (content["test"][0][:-1], content["test"][1])


def other_shape(content):
    content["train"] = (content["train"][0][..., :27], content["train"][1])


@pytest.mark.parametrize("change", [foreign_counts, foreign_label, fewer_labels, fewer_images, other_shape])
def test_files_of_other_counts_labels_or_shapes_are_not_taken_for_the_data_set(tmp_path, small, change):
    content = small("mnist")
    change(content)
    write_idx(tmp_path, content)
    with pytest.raises(InputError, match="they are not mnist's own files: replace them") as caught:
        read_raw("mnist", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_digits_are_scikit_learns_with_fifty_of_each_class_for_testing():
    from sklearn.datasets import load_digits

    raw = read_raw("digits", "no-such-folder")
    assert raw["test"][1].bincount().tolist() == [50] * 10
    assert tuple(raw["train"][1].bincount().tolist()) == DATASETS["digits"].train_per_class
    digits = load_digits()
    images, labels = (torch.cat([raw["train"][part], raw["test"][part]]) for part in (0, 1))
    assert (images.dtype, tuple(images.shape[1:])) == (torch.uint8, (1, 8, 8))
    rows = numpy.column_stack([images.flatten(1).numpy(), labels.numpy()])
    whole = numpy.column_stack([numpy.round(digits.data * 255 / 16).astype(int), digits.target])
    assert sorted(rows.tolist()) == sorted(whole.tolist())  # each once with its label: train and test are disjoint


def test_digits_are_split_alike_on_every_call():
    first, second = read_raw("digits", "a"), read_raw("digits", "b")
    assert all(torch.equal(a, b) for split in first for a, b in zip(first[split], second[split], strict=True))


def test_names_without_raw_files_are_refused():
    with pytest.raises(InputError, match="clusters-k2-d2-s1 has no raw files; allowed: digits, mnist"):
        read_raw("clusters-k2-d2-s1", "data")
    with pytest.raises(InputError, match="nearest valid name: cifar10"):
        read_raw("cifar-10", "data")


def test_the_global_generator_is_left_alone(tmp_path, small):
    write_idx(tmp_path, small("mnist"), compressed=True)
    before, numpys = torch.random.get_rng_state(), pickle.dumps(numpy.random.get_state())
    read_raw("mnist", tmp_path)
    read_raw("digits", tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert pickle.dumps(numpy.random.get_state()) == numpys


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """Fashion-MNIST as Debian packages it, with what its folder held before and after reading."""
    if not all((DEBIAN / f"{file}.gz").is_file() for file in DATASETS["fashion_mnist"].files):
        pytest.skip(f"{DEBIAN} is absent: install Debian's package dataset-fashion-mnist to run this test")
    user = tmp_path_factory.mktemp("user")

    def state():
        return DEBIAN.stat().st_mtime_ns, {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in DEBIAN.iterdir()}

    before = state()
    raw = read_raw("fashion_mnist", user)
    assert list(user.iterdir()) == []
    return raw, before, state()


def test_debians_fashion_mnist_is_the_published_one(fashion):
    assert unpublished_files("fashion_mnist", DEBIAN) == []


def test_debians_fashion_mnist_has_its_published_size_balance_and_first_labels(fashion):
    raw, _, _ = fashion
    assert tuple(raw["train"][0].shape) == (60000, 1, 28, 28)
    assert tuple(raw["test"][0].shape) == (10000, 1, 28, 28)
    assert raw["train"][1].bincount().tolist() == [6000] * 10
    assert raw["test"][1].bincount().tolist() == [1000] * 10
    assert raw["train"][1][:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]  # ankle boot, T-shirt, T-shirt, dress, ...
    assert raw["test"][1][:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]


def test_debians_fashion_mnist_has_the_published_pixel_mean_and_deviation(fashion):
    counts = fashion[0]["train"][0].flatten().bincount(minlength=256).double()
    values = torch.arange(256).double() / 255
    mean = (counts @ values / counts.sum()).item()
    std = (counts @ (values - mean).square() / counts.sum()).sqrt().item()
    assert (round(mean, 4), round(std, 4)) == (0.2860, 0.3530)


def test_debians_fashion_mnist_is_what_its_gzips_say_byte_for_byte(fashion):
    with gzip.open(DEBIAN / "t10k-images-idx3-ubyte.gz") as file:
        data = io.BytesIO(file.read())
    data.seek(16)
    assert fashion[0]["test"][0].numpy().tobytes() == data.read()


def test_debians_folder_is_never_written_to(fashion):
    _, before, after = fashion
    assert before == after
