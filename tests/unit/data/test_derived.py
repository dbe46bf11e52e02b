"""Parts of a data set: the right examples in the right order, pixels that are means over areas."""

import runpy
from argparse import Namespace
from fractions import Fraction
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_files import write_cifar, write_idx

from hessketch.data.catalog import DATASETS, describe
from hessketch.data.examples import load_examples
from hessketch.data.of_run import subset_seed
from hessketch.data.prepared import prepare_dataset, read_prepared, reduce_images, select_classes, to_side_32
from hessketch.data.sources import read_raw
from hessketch.errors import InputError
from hessketch.runs import Run

RUN = Run("digits-classes3+8-8x8", 0.2, 10, "mlp", "none", 0.1, "binary_cross_entropy", "sgd", 0.1, 4)
PREPARE = Path(__file__).parents[3] / "workflow/scripts/prepare_data.py"


def by_loop(image, side, grey):
    """One image (c, S, S) uint8 reduced pixel by pixel in exact fractions; Python rounds halves to even too."""
    weights = [Fraction(n, 1000) for n in (299, 587, 114)]
    channels = [[[Fraction(int(value)) for value in row] for row in channel] for channel in image]
    if grey:
        mixed = [
            [sum(w * c[i][j] for w, c in zip(weights, channels, strict=True)) for j in range(len(channels[0]))]
            for i in range(len(channels[0]))
        ]
        channels = [mixed]
    raw = len(channels[0])
    bounds = [(i * raw // side, -(-(i + 1) * raw // side)) for i in range(side)]
    reduced = []
    for channel in channels:
        rows = []
        for top, bottom in bounds:
            areas = ([v for row in channel[top:bottom] for v in row[left:right]] for left, right in bounds)
            rows.append([round(sum(area) / len(area)) for area in areas])
        reduced.append(rows)
    return numpy.array(reduced, dtype=numpy.uint8)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.data())
def test_each_reduced_pixel_is_the_rounded_mean_of_its_area(raw, data):
    side = data.draw(st.integers(1, raw))
    grey = data.draw(st.booleans())
    levels = data.draw(
        st.sampled_from([2, 8, 256])
    )  # with few levels halves, which must go to the even byte, are common
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    images = torch.randint(0, levels, (2, 3, raw, raw), generator=generator).to(torch.uint8)
    reduced = reduce_images(images, side, grey)
    assert (reduced.dtype, tuple(reduced.shape)) == (torch.uint8, (2, 1 if grey else 3, side, side))
    for image, expected in zip(reduced, images, strict=True):
        assert numpy.array_equal(image.numpy(), by_loop(expected.numpy(), side, grey))


def test_halving_the_side_averages_two_by_two_pixels_by_hand():
    image = torch.tensor([[[[10, 20, 0, 1], [30, 41, 0, 1], [255, 255, 1, 2], [255, 255, 2, 1]]]], dtype=torch.uint8)
    assert reduce_images(image, 2).tolist() == [[[[25, 0], [255, 2]]]]  # 25.25, 0.5, 255, 1.5


def test_grey_is_the_luminance_and_leaves_black_and_white_as_they_are():
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]], dtype=torch.uint8)
    grey = reduce_images(colours.view(5, 3, 1, 1), 1, grey=True)
    assert grey.flatten().tolist() == [76, 150, 29, 255, 0]  # 76.245, 149.685, 29.07


def test_more_images_than_are_reduced_at_once_come_out_in_order():
    images = torch.arange(2345).remainder(251).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    assert torch.equal(reduce_images(images, 2), images[:, :, :2, :2])


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.lists(st.integers(0, 6), min_size=1, unique=True))
@example(labels=[2, 0, 1, 2], kept=[2, 1])
def test_selected_examples_keep_their_order_and_are_relabelled_in_the_order_given(labels, kept):
    images = torch.arange(len(labels))
    chosen, relabelled = select_classes(images, torch.tensor(labels), kept)
    expected = [(i, kept.index(label)) for i, label in enumerate(labels) if label in kept]
    assert list(zip(chosen.tolist(), relabelled.tolist(), strict=True)) == expected
    assert relabelled.dtype == torch.int64


@pytest.fixture
def small_cifar(small, tmp_path, monkeypatch):
    content = small("cifar10")
    write_cifar(tmp_path, "cifar10", content, monkeypatch)
    return content, tmp_path


def test_two_classes_of_cifar_are_its_own_images_relabelled(small_cifar):
    content, folder = small_cifar
    prepared = prepare_dataset("cifar10-classes3+5", folder)
    for split, count in (("train", 10), ("test", 5)):
        images, labels = content[split]
        got_images, got_labels = prepared.split(split)
        members = [i for i, label in enumerate(labels) if label in (3, 5)]
        assert numpy.array_equal(got_images.numpy(), images[members])
        assert got_labels.tolist() == [{3: 0, 5: 1}[labels[i]] for i in members]
        assert got_labels.bincount().tolist() == [count, count]


def test_grey_cifar_is_the_luminance_of_the_raw_images_reduced_by_area(small_cifar):
    content, folder = small_cifar
    prepared = prepare_dataset("cifar10-grey16x16", folder)
    assert tuple(prepared.train_images.shape) == (100, 1, 16, 16)
    assert numpy.array_equal(prepared.train_labels.numpy(), content["train"][1])
    for i in (0, 57, 99):
        assert numpy.array_equal(prepared.train_images[i].numpy(), by_loop(content["train"][0][i], 16, grey=True))
    examples = load_examples(prepared, "cifar10-grey16x16", "train", None, 0.0, seed=0)
    dataset = describe("cifar10-grey16x16")
    expected = (prepared.train_images.double() / 255 - dataset.mean[0]) / dataset.std[0]
    torch.testing.assert_close(examples.inputs.double(), expected, atol=1e-5, rtol=0)


def test_classes_and_pixels_combine_as_two_steps(small, tmp_path):
    content = small("mnist")
    write_idx(tmp_path, content)
    both = prepare_dataset("mnist-classes7+2-14x14", tmp_path)
    images, labels = select_classes(*read_raw("mnist", tmp_path)["train"], [7, 2])
    assert torch.equal(both.train_images, reduce_images(images, 14))
    assert torch.equal(both.train_labels, labels)
    assert sorted(labels.tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["cifar10", "cifar10-classes3+5"])
def test_without_a_side_images_are_those_of_the_base_at_32_pixels(small_cifar, name):
    content, folder = small_cifar
    images = prepare_dataset(name, folder).test_images
    raw = torch.from_numpy(content["test"][0])
    kept = torch.isin(torch.from_numpy(content["test"][1]), torch.tensor([3, 5])) if "-" in name else slice(None)
    assert torch.equal(images, to_side_32(raw)[kept])


def test_digits_at_their_raw_side_are_the_raw_pixels():
    prepared, raw = prepare_dataset("digits-8x8", "absent"), read_raw("digits", "absent")
    assert torch.equal(prepared.train_images, raw["train"][0])
    assert torch.equal(prepared.test_labels, raw["test"][1])


def test_the_raw_files_of_a_part_are_those_of_its_base_and_missing_ones_are_named(small_cifar):
    _, folder = small_cifar
    whole, part = read_raw("cifar10", folder), read_raw("cifar10-classes3+5-grey8x8", folder)
    assert all(torch.equal(a, b) for split in whole for a, b in zip(whole[split], part[split], strict=True))
    (folder / "data_batch_2").unlink()
    with pytest.raises(InputError, match=r"does not hold the files of cifar10, all expected there: data_batch_1"):
        prepare_dataset("cifar10-classes3+5", folder)


def test_subsets_of_two_classes_are_nested_wrong_labels_included():
    prepared = prepare_dataset(RUN.dataset, "absent")
    smaller = {}
    for per_class in (5, 10, 40, None):
        examples = load_examples(prepared, RUN.dataset, "train", per_class, 0.2, subset_seed(RUN))
        pixels = [tuple(image.flatten().tolist()) for image in examples.inputs]
        targets = dict(zip(pixels, examples.targets.tolist(), strict=True))
        assert len(targets) == len(examples)  # no two images alike
        assert smaller.items() <= targets.items()
        assert examples.classes == 2
        if per_class:
            clean = load_examples(prepared, RUN.dataset, "train", per_class, 0.0, subset_seed(RUN)).targets
            assert clean.bincount().tolist() == [per_class, per_class]
            assert (examples.targets != clean).sum() == 2 * (per_class // 5)
        smaller = targets


def test_every_digit_of_a_class_is_kept():
    prepared = prepare_dataset("digits-classes8+0", "absent")
    assert (
        tuple(prepared.train_labels.bincount().tolist()) == describe("digits-classes8+0").train_per_class == (124, 128)
    )
    whole = prepare_dataset("digits", "absent")
    assert torch.equal(prepared.train_images[prepared.train_labels == 0], whole.train_images[whole.train_labels == 8])


def test_the_workflows_script_writes_a_part(tmp_path):
    said = []
    arguments = Namespace(dataset="digits-classes3+5-4x4", folder=tmp_path / "absent", output=tmp_path / "out")
    runpy.run_path(str(PREPARE))["prepare"](arguments, Namespace(say=said.append))
    prepared = read_prepared(tmp_path / "out")
    assert tuple(prepared.test_images.shape) == (100, 1, 4, 4)
    assert prepared.train_labels.bincount().tolist() == [DATASETS["digits"].train_per_class[i] for i in (3, 5)]
    assert "test_images (100, 1, 4, 4)" in said[-1]


def test_the_workflows_script_refuses_a_folder_before_it_reads(tmp_path):
    arguments = Namespace(dataset="digits", folder=tmp_path / "absent", output=tmp_path)
    said = []
    with pytest.raises(InputError, match="is a folder; give the name of a file"):
        runpy.run_path(str(PREPARE))["prepare"](arguments, Namespace(say=said.append))
    assert not said
