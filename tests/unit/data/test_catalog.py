"""Descriptions of the data sets agree with torchvision, names are understood, files are found in each layout."""

import subprocess
import sys
from pathlib import Path

import pytest

from hessketch.data import catalog
from hessketch.data.catalog import DATASETS, describe, is_system_folder, local_files, parse_clusters, raw_file
from hessketch.data.torchvision_import import import_torchvision
from hessketch.errors import InputError

FOLDERS = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}


@pytest.fixture(autouse=True)
def _no_system_folder(monkeypatch):
    monkeypatch.delitem(catalog._DEBIAN_FOLDERS, "fashion_mnist")


def touch(folder, files, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / f"{file}{suffix}").touch()


def test_the_catalog_imports_neither_torch_nor_pandas():
    code = (
        "import sys, hessketch.data.catalog as c; c.describe('mnist'); c.local_files('mnist', '.');"
        "print(sorted({'torch', 'torchvision', 'pandas', 'numpy', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("digits", 1297, 500),
        ("mnist", 60000, 10000),
        ("fashion_mnist", 60000, 10000),
        ("cifar10", 50000, 10000),
        ("cifar100", 50000, 10000),
    ],
)
def test_class_counts_add_up_to_the_published_sizes(name, train, test):
    dataset = describe(name)
    assert (sum(dataset.train_per_class), sum(dataset.test_per_class)) == (train, test)
    assert len(dataset.train_per_class) == len(dataset.test_per_class) == dataset.classes
    assert len(dataset.mean) == len(dataset.std) == dataset.channels


def test_the_scarcest_and_commonest_digits_of_mnist_are_five_and_one():
    for counts in (DATASETS["mnist"].train_per_class, DATASETS["mnist"].test_per_class):
        assert counts.index(min(counts)) == 5
        assert counts.index(max(counts)) == 1


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_and_their_host_are_those_that_torchvision_downloads(name):
    reader = getattr(import_torchvision().datasets, FOLDERS[name].split("/")[0])
    assert [f"{file}.gz" for file in DATASETS[name].files] == [file for file, _ in reader.resources]
    assert "/".join(reader.mirrors[0].split("/")[:3]) == DATASETS[name].download_url


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_files_and_their_host_are_those_that_torchvision_downloads(name):
    reader = getattr(import_torchvision().datasets, name.upper())
    files = [file for file, _ in [*reader.train_list, *reader.test_list]] + [reader.meta["filename"]]
    assert list(DATASETS[name].files) == files
    assert reader.base_folder == FOLDERS[name]
    assert "/".join(reader.url.split("/")[:3]) == DATASETS[name].download_url


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("mnits", "mnist"),
        ("MNIST", "mnist"),
        ("CIFAR10", "cifar10"),
        ("FashionMNIST", "fashion_mnist"),
        ("cifar-100", "cifar100"),
        ("digit", "digits"),
        ("cluster-k10-d50-s4", "clusters-k10-d50-s4"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(typed, nearest):
    with pytest.raises(InputError, match=f"nearest valid name: {nearest}$"):
        describe(typed)


def test_a_name_like_no_other_is_answered_with_all_allowed_ones():
    with pytest.raises(InputError, match="allowed: digits, mnist, fashion_mnist, cifar10, cifar100") as caught:
        describe("zzz")
    assert "nearest" not in str(caught.value)


def test_a_clusters_name_says_classes_dimensions_and_separation():
    assert parse_clusters("clusters-k10-d50-s4") == (10, 50, 4.0)
    assert parse_clusters("clusters-k2-d1-s0.75") == (2, 1, 0.75)
    dataset = describe("clusters-k3-d7-s2.5")
    assert (dataset.classes, dataset.channels, dataset.side, dataset.embedded) == (3, 0, 7, True)
    assert dataset.train_per_class == dataset.test_per_class == (1000,) * 3


@pytest.mark.parametrize(
    "name",
    [
        "clusters-",
        "clusters-k10-d50",
        "clusters-k10-d50-s",
        "clusters-k10-d50-s-4",
        "clusters-k10-d50-s4.",
        "clusters-k10-d50-s4 ",
        "clusters-k2-d2-s" + "9" * 400,
    ],
)
def test_a_malformed_clusters_name_is_refused_with_the_form_to_use(name):
    with pytest.raises(InputError, match="nearest valid name: clusters-k10-d50-s4"):
        describe(name)


@pytest.mark.parametrize("name", ["clusters-k1-d5-s1", "clusters-k2-d0-s1", "clusters-k1000-d101-s1"])
def test_clusters_of_impossible_size_are_refused(name):
    with pytest.raises(InputError, match="at least 2 classes"):
        describe(name)


@pytest.mark.parametrize("name", FOLDERS)
def test_files_are_found_in_torchvisions_layout_in_a_named_folder_and_flat(tmp_path, name):
    files = DATASETS[name].files
    assert local_files(name, tmp_path) is None
    touch(tmp_path, files)
    assert local_files(name, tmp_path) == tmp_path
    touch(tmp_path / name, files)
    assert local_files(name, str(tmp_path)) == tmp_path / name
    touch(tmp_path / FOLDERS[name], files)
    assert local_files(name, tmp_path) == tmp_path / FOLDERS[name]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_lacks_one_file_does_not_count(tmp_path, name):
    files = DATASETS[name].files
    for left_out in files:
        folder = tmp_path / left_out
        touch(folder, [file for file in files if file != left_out])
        assert local_files(name, folder) is None
        (folder / left_out).mkdir()  # a folder of that name is no file
        assert local_files(name, folder) is None


def test_a_gzip_stands_for_an_idx_file_but_not_for_a_cifar_file(tmp_path):
    touch(tmp_path / "i", DATASETS["mnist"].files, ".gz")
    touch(tmp_path / "c", DATASETS["cifar10"].files, ".gz")
    assert local_files("mnist", tmp_path / "i") == tmp_path / "i"
    assert local_files("cifar10", tmp_path / "c") is None
    assert raw_file(tmp_path / "i", "t10k-images-idx3-ubyte") == tmp_path / "i/t10k-images-idx3-ubyte.gz"
    (tmp_path / "i/t10k-images-idx3-ubyte").touch()
    assert raw_file(tmp_path / "i", "t10k-images-idx3-ubyte") == tmp_path / "i/t10k-images-idx3-ubyte"


def test_the_system_folder_serves_fashion_mnist_alone_and_only_after_the_users_own(tmp_path, monkeypatch):
    system, user = tmp_path / "system", tmp_path / "user"
    touch(system, DATASETS["fashion_mnist"].files, ".gz")
    monkeypatch.setitem(catalog._DEBIAN_FOLDERS, "fashion_mnist", system)
    assert local_files("fashion_mnist", user) == system
    assert local_files("mnist", user) is None
    assert is_system_folder(system)
    assert not is_system_folder(user)
    touch(user, DATASETS["fashion_mnist"].files)
    assert local_files("fashion_mnist", user) == user


def test_debians_package_is_looked_for_in_its_own_folder(monkeypatch):
    monkeypatch.undo()
    assert {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")} == catalog._DEBIAN_FOLDERS


@pytest.mark.parametrize("name", ["digits", "clusters-k2-d2-s1"])
def test_embedded_data_have_no_files(tmp_path, name):
    assert local_files(name, tmp_path) is None
    assert describe(name).embedded
