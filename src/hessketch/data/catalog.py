"""What each data set is and where its raw files lie. Imports no torch: a config is checked with it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hessketch.data.dataset import SIDE, Dataset
from hessketch.data.derived_names import derive, part_problems
from hessketch.errors import InputError, nearest
from hessketch.extensions import HINT, register, registered, require_takes

CLUSTER_EXAMPLES_PER_CLASS = 1000  # of the synthetic Gaussian clusters, in train and in test alike
CLUSTER_EXAMPLE = "clusters-k10-d50-s4"
_MOST_CLUSTER_COORDINATES = 100_000  # classes x dimensions: both splits then take 0.8 GB
_CLUSTERS = re.compile(r"clusters-k([0-9]{1,9})-d([0-9]{1,9})-s([0-9]{1,9}(?:\.[0-9]{1,9})?)")

_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# SHA-256 of the published files, unpacked (Debian packs them anew). MNIST's are as other projects give them.
_MNIST_DIGESTS = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
_FASHION_MNIST_DIGESTS = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
_DEBIAN_FOLDERS = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}  # package dataset-fashion-mnist
_TORCHVISION_FOLDERS = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="digits",
            classes=10,
            channels=1,
            side=8,
            train_per_class=(128, 132, 127, 133, 131, 132, 131, 129, 124, 130),
            test_per_class=(50,) * 10,
            mean=(0.3054,),
            std=(0.3758,),
            embedded=True,
        ),
        Dataset(
            name="mnist",
            classes=10,
            channels=1,
            side=28,
            train_per_class=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
            test_per_class=(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
            mean=(0.1307,),
            std=(0.3081,),
            files=_IDX_FILES,
            digests=_MNIST_DIGESTS,
            download_host="ossci-datasets.s3.amazonaws.com",
        ),
        Dataset(
            name="fashion_mnist",
            classes=10,
            channels=1,
            side=28,
            train_per_class=(6000,) * 10,
            test_per_class=(1000,) * 10,
            mean=(0.5,),
            std=(0.5,),
            files=_IDX_FILES,
            digests=_FASHION_MNIST_DIGESTS,
            download_host="fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            download_scheme="http",
        ),
        Dataset(
            name="cifar10",
            classes=10,
            channels=3,
            side=32,
            train_per_class=(5000,) * 10,
            test_per_class=(1000,) * 10,
            mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
            std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
            files=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
            download_host="www.cs.toronto.edu",
        ),
        Dataset(
            name="cifar100",
            classes=100,
            channels=3,
            side=32,
            train_per_class=(500,) * 100,
            test_per_class=(100,) * 100,
            mean=(129.3 / 255, 124.1 / 255, 112.4 / 255),
            std=(68.2 / 255, 65.4 / 255, 70.4 / 255),
            files=("train", "test", "meta"),
            download_host="www.cs.toronto.edu",
        ),
    )
}


def describe(name: str) -> Dataset:
    """The data set of a name: one of `DATASETS`, one derived from it, or Gaussian clusters as `clusters-k10-d50-s4`.

    Derived names are BASE[-classesA+B...][-SIDExSIDE | -greySIDExSIDE][-raw]: `cifar10-classes3+5` has these classes
    alone, relabelled 0, 1, ... in the order given; `mnist-14x14` has images reduced by area from the raw ones;
    `cifar10-grey16x16` their luminance, reduced; `mnist-16x16-raw` pixels in [0, 1] that no mean and standard deviation
    are taken out of, so that what is always black is 0. Raises InputError naming the nearest valid name.
    """
    known = _known()
    if name in known:
        return known[name]
    if name.startswith("clusters-"):
        classes, dimensions, _ = parse_clusters(name)
        per_class = (CLUSTER_EXAMPLES_PER_CLASS,) * classes
        return Dataset(name, classes, 0, dimensions, per_class, per_class, embedded=True)
    base, dash, _ = name.partition("-")
    if dash and base in known and known[base].channels:
        return derive(name, known[base])
    raise InputError(
        f"unknown data set {name!r}; allowed: {', '.join(known)}, a part of one such as mnist-classes3+5-14x14, "
        f"Gaussian clusters such as {CLUSTER_EXAMPLE}{HINT}" + nearest(name.lower(), _names_like(name.lower()))
    )


def _known() -> dict[str, Dataset]:
    """Data sets of their own: the package's, then those that extensions have registered."""
    return {**DATASETS, **{name: dataset for name, (dataset, _) in registered("dataset").items()}}


def register_dataset(dataset: Dataset, read: Callable[..., Mapping[str, Any]]) -> None:
    """Makes a data set of the user's own known by `dataset.name`, wherever one of DATASETS is allowed.

    `read`, called with the data folder if it takes `folder`, returns `train` and `test`, each as images (n, channels,
    side, side) uint8, or vectors (n, side) float32 where `channels` is 0, and labels (n,) int64 from 0. Their numbers
    by class are those that `dataset` names: a config is checked against them before anything is read.

    Raises InputError for a name that is taken or not of lower-case letters, digits and underscores, for a description
    that contradicts itself, and for a function that needs other arguments.
    """
    what = f"data set {dataset.name!r}"
    require_takes(what, read, ("folder",))
    for problem in _contradictions(dataset):
        raise InputError(f"{what}: {problem}")
    described = replace(dataset, embedded=True)  # no files that we could look for, or download
    register("dataset", dataset.name, (described, read), (*DATASETS, "clusters"), read)


def _contradictions(dataset: Dataset) -> Iterator[str]:
    for split in ("train", "test"):
        counts = getattr(dataset, f"{split}_per_class")
        if len(counts) != dataset.classes or dataset.classes < 2 or min(counts) < 1:
            yield f"{split}_per_class {counts} given; allowed: from 1 for each of its {dataset.classes} classes"
    if dataset.channels and not len(dataset.mean) == len(dataset.std) == dataset.channels:
        yield f"mean {dataset.mean} and std {dataset.std} given; allowed: one each for {dataset.channels} channels"
    if dataset.channels and not 1 <= dataset.side <= SIDE:
        yield f"images of {dataset.side}x{dataset.side} given; allowed: square ones of at most {SIDE}x{SIDE}"


def _names_like(name: str) -> list[str]:
    """Valid names to compare a wrong one with: the bases, each also with the name's own classes and side."""
    end = re.search(r"-(?:classes|grey[0-9]|[0-9]+x|raw).*", name)
    known = _known()
    bases = [dataset for dataset in known.values() if dataset.channels]
    derived = [dataset.name + end[0] for dataset in bases if end and not part_problems(dataset, end[0])]
    return [*derived, *known, CLUSTER_EXAMPLE]


def parse_clusters(name: str) -> tuple[int, int, float]:
    """Classes, dimensions and separation (in standard deviations) of a name such as `clusters-k10-d50-s4`.

    Raises InputError for another form, fewer than 2 classes, no dimension, or data beyond 0.8 GB.
    """
    match = _CLUSTERS.fullmatch(name)
    if match is None:
        raise InputError(
            f"{name!r} does not name Gaussian clusters; allowed: clusters-k<classes>-d<dimensions>-s<separation>; "
            f"nearest valid name: {CLUSTER_EXAMPLE}"
        )
    classes, dimensions, separation = int(match[1]), int(match[2]), float(match[3])
    if classes < 2 or dimensions < 1 or classes * dimensions > _MOST_CLUSTER_COORDINATES:
        raise InputError(
            f"{name!r} asks for {classes} classes in {dimensions} dimensions; allowed: at least 2 classes, "
            f"at least 1 dimension, classes x dimensions at most {_MOST_CLUSTER_COORDINATES}; choose smaller numbers"
        )
    return classes, dimensions, separation


def raw_file(folder: Path, file: str) -> Path | None:
    """The path of a raw file in a folder: as named, or else its gzip beside it; None if neither is there."""
    candidates = [folder / file, folder / f"{file}.gz"] if file in _IDX_FILES else [folder / file]
    return next((path for path in candidates if path.is_file()), None)


def require_raw_file(folder: Path, file: str) -> Path:
    """As `raw_file`; raises InputError where there is none."""
    path = raw_file(folder, file)
    if path is None:
        raise InputError(f"{folder}: has no {file}; put it there, or download the data set again")
    return path


def local_files(name: str, folder: str | Path) -> Path | None:
    """The folder that holds all raw files of a data set, None if a download is needed (or the set has no files).

    Looked for in this order: torchvision's own layout below `folder` (such as `MNIST/raw`), `folder/name`,
    `folder` itself, and for fashion_mnist the folder of Debian's package dataset-fashion-mnist. A derived data set's
    are those of its base.
    """
    dataset = describe(name)
    if not dataset.files:
        return None
    folder, base = Path(folder), dataset.base
    candidates = [folder / _TORCHVISION_FOLDERS[base], folder / base, folder]
    if base in _DEBIAN_FOLDERS:
        candidates.append(_DEBIAN_FOLDERS[base])
    return next((c for c in candidates if all(raw_file(c, file) for file in dataset.files)), None)


def is_system_folder(folder: Path) -> bool:
    """Whether a folder belongs to the operating system's packages."""
    return folder in _DEBIAN_FOLDERS.values()
