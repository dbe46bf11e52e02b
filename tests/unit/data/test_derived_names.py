"""Names of parts of a data set say which classes, pixels and files; wrong ones are answered with the nearest."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hessketch.config_data import network_problems
from hessketch.data import catalog
from hessketch.data.catalog import DATASETS, describe, local_files
from hessketch.data.integrity import damaged_files
from hessketch.data.prepared import normalise
from hessketch.errors import InputError

MNIST = DATASETS["mnist"]


def test_two_classes_keep_their_counts_in_the_order_of_the_name():
    dataset = describe("mnist-classes5+1")
    assert (dataset.name, dataset.base, dataset.kept_classes, dataset.classes) == (
        "mnist-classes5+1",
        "mnist",
        (5, 1),
        2,
    )
    assert dataset.train_per_class == (MNIST.train_per_class[5], MNIST.train_per_class[1]) == (5421, 6742)
    assert dataset.test_per_class == (892, 1135)
    assert (dataset.mean, dataset.std, dataset.channels) == (MNIST.mean, MNIST.std, 1)
    assert (dataset.prepared_side, dataset.input_shape) == (32, (1, 32, 32))


def test_a_side_changes_the_prepared_images_and_nothing_else():
    dataset = describe("fashion_mnist-14x14")
    assert (dataset.prepared_side, dataset.input_shape) == (14, (1, 14, 14))
    base = replace(dataset, name="fashion_mnist", derived_from=None, reduced_side=None)
    assert base == DATASETS["fashion_mnist"]


def test_grey_images_have_one_channel_with_luminance_weighted_constants():
    dataset = describe("cifar10-classes3+5+9-grey16x16")
    assert (dataset.classes, dataset.channels, dataset.grey, dataset.input_shape) == (3, 1, True, (1, 16, 16))
    assert dataset.mean == pytest.approx([(0.299 * 125.3 + 0.587 * 123.0 + 0.114 * 113.9) / 255])
    assert dataset.std == pytest.approx([(0.299 * 63.0 + 0.587 * 62.1 + 0.114 * 66.7) / 255])


@pytest.mark.parametrize("name", [*DATASETS, "clusters-k3-d7-s2"])
def test_a_data_set_of_its_own_is_its_own_base_with_all_classes(name):
    dataset = describe(name)
    assert (dataset.base, dataset.kept_classes, dataset.grey) == (name, (), False)
    assert dataset.input_shape == ((7,) if name.startswith("clusters") else (dataset.channels, 32, 32))


@given(st.sampled_from(list(DATASETS)), st.data())
def test_every_valid_part_is_described_as_its_name_says(name, data):
    base = DATASETS[name]
    kept = data.draw(st.lists(st.integers(0, base.classes - 1), min_size=2, max_size=10, unique=True) | st.just([]))
    side = data.draw(st.none() | st.integers(1, base.side))
    grey = bool(side) and base.channels == 3 and data.draw(st.booleans())
    part = f"-classes{'+'.join(map(str, kept))}" if kept else ""
    part += f"-{'grey' if grey else ''}{side}x{side}" if side else ""
    dataset = describe(name + part)
    assert (dataset.name, dataset.base, dataset.files) == (name + part, name, base.files)
    assert dataset.kept_classes == tuple(kept)
    assert dataset.train_per_class == tuple(base.train_per_class[i] for i in kept or range(base.classes))
    assert len(dataset.test_per_class) == dataset.classes == len(kept or range(base.classes))
    assert (dataset.grey, dataset.prepared_side) == (grey, side or 32)
    assert len(dataset.mean) == len(dataset.std) == dataset.channels == (1 if grey else base.channels)


@pytest.mark.parametrize(
    ("wrong", "allowed", "right"),
    [
        ("mnist-29x29", "exactly SIDExSIDE, SIDE a whole number from 1 to 28", "mnist-28x28"),
        ("digits-9x9", "from 1 to 8, the raw images' side", "digits-8x8"),
        ("mnist-0x0", "from 1 to 28", "mnist-1x1"),
        ("mnist-14x15", "exactly SIDExSIDE", "mnist-14x14"),
        ("mnist-14", r"mnist\[-classesA\+B\[\+C...\]\]\[-SIDExSIDE\]\[-raw\];", "mnist-14x14"),
        ("mnist-14.5x14.5", "-SIDExSIDE", "mnist-14x14"),
        ("mnist-07x07", "without leading zeros", "mnist-7x7"),
        ("mnist-classes3+05", "without leading zeros", "mnist-classes3+5"),
        ("mnist-grey14x14", "grey already; allowed: -SIDExSIDE", "mnist-14x14"),
        ("cifar10-grey16", r"\[-SIDExSIDE \| -greySIDExSIDE\]", "cifar10-grey16x16"),
        ("cifar10-classes3", "at least two different classes from 0 to 9", "cifar10-classes3+0"),
        ("cifar10-classes0", "at least two different classes from 0 to 9", "cifar10-classes0+1"),
        ("cifar10-classes3+5+3", "at least two different classes", "cifar10-classes3+5"),
        ("cifar100-classes5+100", "from 0 to 99", "cifar100-classes5+0"),
        ("cifar10-classes3+5-", "classesA", "cifar10-classes0+1"),
        ("cifar10-clases3+5", "classesA", "cifar10-classes0+1"),
        ("mnist-", "no such part of mnist", "mnist"),
        ("mnist-raw-14x14", "no such part of mnist", "mnist-14x14"),
        ("mnist-16x16-rav", "no such part of mnist", "mnist-14x14-raw"),
        ("minst-16x16-raw", "a part of one such as", "mnist-16x16-raw"),
        ("mnits-14x14", "a part of one such as", "mnist-14x14"),
        ("cifar-10-classes3+5-grey8x8", "a part of one such as", "cifar10-classes3+5-grey8x8"),
        ("FashionMNIST-classes0+6-14x14", "a part of one such as", "fashion_mnist-classes0+6-14x14"),
    ],
)
def test_a_wrong_part_is_answered_with_what_is_allowed_and_the_nearest_valid_name(wrong, allowed, right):
    with pytest.raises(InputError, match=allowed) as caught:
        describe(wrong)
    assert str(caught.value).endswith(f"; nearest valid name: {right}")
    assert describe(right).name == right


def test_every_fault_of_a_part_is_named_at_once():
    with pytest.raises(InputError, match=r"classes 12\+14 given.*grey already.*40x41 given.*mnist-classes0\+1-28x28$"):
        describe("mnist-classes12+14-grey40x41")


def test_clusters_have_no_parts():
    with pytest.raises(InputError, match="does not name Gaussian clusters"):
        describe("clusters-k10-d50-s4-classes0+1")


@pytest.mark.parametrize("part", ["-classes0+6", "-14x14", "-classes0+6-14x14"])
def test_the_files_of_a_part_are_those_of_its_base(tmp_path, monkeypatch, part):
    monkeypatch.setitem(catalog._DEBIAN_FOLDERS, "fashion_mnist", tmp_path / "system")
    name = f"fashion_mnist{part}"
    assert local_files(name, tmp_path) is None
    for folder in (tmp_path / "system", tmp_path, tmp_path / "fashion_mnist", tmp_path / "FashionMNIST/raw"):
        folder.mkdir(parents=True, exist_ok=True)
        for file in MNIST.files:
            (folder / file).touch()
        assert local_files(name, tmp_path) == local_files("fashion_mnist", tmp_path) == folder
    assert damaged_files(name, folder) == damaged_files("fashion_mnist", folder)
    assert len(damaged_files(name, folder)) == 4  # empty files


@pytest.mark.parametrize("part", ["-classes3+5", "-32x32", "-grey32x32", "-classes3+5-grey32x32"])
def test_networks_of_images_take_parts_that_stay_32_pixels_wide(part):
    networks = [{"name": name} for name in ("vgg11", "resnet18", "resnet18_smooth", "mlp")]
    assert list(network_problems("networks", networks, [f"cifar10{part}"])) == []


def test_networks_of_images_on_reduced_ones_are_refused_as_on_vectors():
    networks = [{"name": name} for name in ("vgg11", "mlp", "resnet18", "resnet18_smooth")]
    expected = [
        f"networks: {name} needs images of 32x32, those of cifar10-grey16x16 are 16x16; allowed there: mlp, mlp_tanh"
        for name in ("vgg11", "resnet18", "resnet18_smooth")
    ]
    assert list(network_problems("networks", networks, ["cifar10-grey16x16", "mnist-14"])) == expected
    (line,) = network_problems("networks", networks[:1], ["clusters-k2-d5-s1"])
    assert line == "networks: vgg11 needs images, clusters-k2-d5-s1 holds vectors; allowed there: mlp, mlp_tanh"


def test_raw_pixels_keep_their_files_and_size_and_are_not_normalised():
    plain, raw = describe("mnist-16x16"), describe("mnist-16x16-raw")
    assert (raw.base, raw.reduced_side, raw.channels, raw.files) == ("mnist", 16, 1, plain.files)
    assert (raw.mean, raw.std) == ((0.0,), (1.0,)) != (plain.mean, plain.std)
    assert describe("cifar10-raw").mean == (0.0, 0.0, 0.0) and describe("cifar10-grey16x16-raw").std == (1.0,)
    images = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert normalise(images, raw).flatten().tolist() == [0, 1]
    assert normalise(images, plain).min() < -0.1
