"""Examples are normalised, balanced and nested, and their batches cover them once in order."""

from dataclasses import replace

import pytest
import torch

from hessketch.data.catalog import DATASETS
from hessketch.data.examples import Examples, load_examples
from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import PreparedData, normalise, prepare_dataset
from hessketch.data.subsets import balanced_subset
from hessketch.errors import InputError
from hessketch.runs import Run


@pytest.fixture(scope="module")
def digits():
    return prepare_dataset("digits", "no-such-folder")


def traceable():
    """Prepared data of 10 x 40 training examples whose first two pixels say which example it is."""
    labels = torch.arange(10).repeat(40)
    images = torch.zeros(400, 1, 32, 32, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(400) // 200, torch.arange(400) % 200
    return PreparedData(images, labels, images[:50], labels[:50])


def originals(examples):
    """Index of each example in `traceable`, from its normalised pixels."""
    mean, std = DATASETS["mnist"].mean[0], DATASETS["mnist"].std[0]
    pixels = ((examples.inputs[:, 0, 0, :2] * std + mean) * 255).round().long()
    return (pixels[:, 0] * 200 + pixels[:, 1]).tolist()


def test_a_subset_is_normalised_and_keeps_its_own_labels(digits):
    examples = load_examples(digits, "digits", "train", 7, 0.0, seed=3)
    indices = balanced_subset(digits.train_labels, 7, seed=3)
    assert torch.equal(examples.inputs, normalise(digits.train_images[indices], DATASETS["digits"]))
    assert torch.equal(examples.targets, digits.train_labels[indices])
    assert (len(examples), examples.classes, examples.inputs.dtype) == (70, 10, torch.float32)


def test_without_a_size_the_whole_split_is_loaded_in_order(digits):
    examples = load_examples(digits, "digits", "test", None, 0.0, seed=0)
    assert torch.equal(examples.inputs, normalise(digits.test_images, DATASETS["digits"]))
    assert torch.equal(examples.targets, digits.test_labels)


@pytest.mark.parametrize("noise", [0.0, 0.25, 0.6])
def test_a_larger_subset_contains_every_smaller_one_wrong_labels_included(noise):
    prepared, smaller = traceable(), {}
    for per_class in (1, 4, 5, 20, 39, None):
        examples = load_examples(prepared, "mnist", "train", per_class, noise, seed=11)
        targets = dict(zip(originals(examples), examples.targets.tolist(), strict=True))
        assert smaller.items() <= targets.items()
        assert len(targets) == 10 * (per_class or 40)
        wrong = [index % 10 for index, target in targets.items() if target != index % 10]
        assert sorted(wrong) == sorted(list(range(10)) * int((per_class or 40) * noise))
        smaller = targets


def test_prepared_data_of_another_data_set_are_refused(digits):
    named = replace(digits, dataset="digits")
    assert len(load_examples(named, "digits", "train", 2, 0.0, seed=0)) == 20
    with pytest.raises(InputError, match=r"hold digits, the run asks for mnist; give .*resources/mnist.safetensors"):
        load_examples(named, "mnist", "train", 2, 0.0, seed=0)
    run = Run("digits-8x8", 0.0, 2, "mlp", "none", 1.0, "cross_entropy", "sgd", 0.1, 0)
    with pytest.raises(InputError, match="hold digits, the run asks for digits-8x8"):
        examples_of_run(run, named, "test", None)


def test_loading_leaves_the_prepared_data_as_they_are(digits):
    labels, images = digits.train_labels.clone(), digits.train_images.clone()
    load_examples(digits, "digits", "train", None, 0.5, seed=0)
    assert torch.equal(digits.train_labels, labels)
    assert torch.equal(digits.train_images, images)


def test_clusters_load_as_vectors_that_share_no_memory_with_the_prepared_data():
    prepared = prepare_dataset("clusters-k3-d4-s2", "no-such-folder")
    examples = load_examples(prepared, "clusters-k3-d4-s2", "train", None, 0.0, seed=0)
    assert torch.equal(examples.inputs, prepared.train_images)
    examples.inputs.zero_()
    assert prepared.train_images.abs().sum() > 0


def test_too_many_examples_an_unknown_split_and_impossible_noise_are_refused(digits):
    with pytest.raises(InputError, match="class 8 has 124; allowed: at most 124"):
        load_examples(digits, "digits", "train", 125, 0.0, seed=0)
    with pytest.raises(InputError, match="unknown split"):
        load_examples(digits, "digits", "valid", 5, 0.0, seed=0)
    with pytest.raises(InputError, match="label noise"):
        load_examples(digits, "digits", "train", 5, 1.0, seed=0)


@pytest.mark.parametrize("size", [1, 3, 4, 10, 99])
def test_batches_cover_the_examples_once_in_order_without_copying(size):
    examples = Examples(torch.randn(10, 2), torch.arange(10), 10)
    batches = examples.batches(size)
    assert [len(targets) for _, targets in batches] == [size] * (10 // size) + [10 % size] * (10 % size > 0)
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), examples.inputs)
    assert torch.equal(torch.cat([targets for _, targets in batches]), examples.targets)
    assert batches[0][0].data_ptr() == examples.inputs.data_ptr()


def test_examples_move_to_a_device_whole():
    moved = Examples(torch.randn(4, 2), torch.arange(4), 4).to("meta")
    assert (moved.inputs.device.type, moved.targets.device.type, moved.classes) == ("meta", "meta", 4)


def test_the_global_generator_is_left_alone(digits):
    before = torch.random.get_rng_state()
    load_examples(digits, "digits", "train", 5, 0.2, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
