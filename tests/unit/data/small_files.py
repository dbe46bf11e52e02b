"""Small data sets of random images, written in the formats of MNIST and of CIFAR."""

import gzip
import hashlib
import pickle

import numpy

from hessketch.data.torchvision_import import import_torchvision


def small_split(dataset, counts, seed):
    """Random images (n, c, side, side) uint8 and shuffled labels (n,) with the given number of each class."""
    generator = numpy.random.default_rng(seed)
    labels = generator.permutation(numpy.repeat(numpy.arange(dataset.classes), counts))
    images = generator.integers(0, 256, (len(labels), dataset.channels, dataset.side, dataset.side), dtype=numpy.uint8)
    return images, labels


def idx_bytes(array):
    """The IDX format: two zero bytes, type 8 (unsigned byte), number of dimensions, big-endian sizes, data."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(numpy.uint8).tobytes()


def write_idx(folder, content, compressed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = content[split]
        for file, array in (("images-idx3-ubyte", images[:, 0]), ("labels-idx1-ubyte", labels)):
            data = idx_bytes(array)
            path = folder / f"{prefix}-{file}{'.gz' if compressed else ''}"
            path.write_bytes(gzip.compress(data, mtime=0) if compressed else data)


def write_cifar(folder, name, content, monkeypatch):
    """Pickles in CIFAR's format, whose digests torchvision is told."""
    folder.mkdir(parents=True, exist_ok=True)
    reader = getattr(import_torchvision().datasets, name.upper())
    key, names = ("labels", "label_names") if name == "cifar10" else ("fine_labels", "fine_label_names")

    def write(file, entry):
        data = pickle.dumps(entry)
        (folder / file).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    for split, attribute in (("train", "train_list"), ("test", "test_list")):
        files = [file for file, _ in getattr(reader, attribute)]
        parts = (numpy.array_split(array, len(files)) for array in content[split])
        entries = [{"data": x.reshape(len(x), -1), key: y.tolist()} for x, y in zip(*parts, strict=True)]
        digests = [[file, write(file, entry)] for file, entry in zip(files, entries, strict=True)]
        monkeypatch.setattr(reader, attribute, digests)
    meta = reader.meta | {"md5": write(reader.meta["filename"], {names: [f"class {i}" for i in range(100)]})}
    monkeypatch.setattr(reader, "meta", meta)
