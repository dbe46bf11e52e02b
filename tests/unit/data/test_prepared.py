"""Images reach 32x32 before normalisation, and the normalisation constants are those of the data."""

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.data.catalog import DATASETS, describe
from hessketch.data.clusters import gaussian_clusters
from hessketch.data.prepared import PreparedData, normalise, prepare, prepare_dataset, read_prepared, to_side_32
from hessketch.errors import InputError
from hessketch.records import write_tensors


def random_images(*shape, seed=0):
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def digits():
    return prepare_dataset("digits", "no-such-folder")


def test_28_pixels_get_two_zeros_on_each_side():
    images = random_images(3, 1, 28, 28)
    padded = to_side_32(images)
    assert (tuple(padded.shape), padded.dtype) == ((3, 1, 32, 32), torch.uint8)
    assert torch.equal(padded[..., 2:30, 2:30], images)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[2:30, 2:30] = True
    assert (padded[..., ~inside] == 0).all()
    assert (padded[..., inside] > 0).all()


def test_32_pixels_are_unchanged():
    images = random_images(2, 3, 32, 32)
    assert torch.equal(to_side_32(images), images)


def test_digits_are_enlarged_by_repeating_each_pixel_four_by_four():
    images = random_images(2, 1, 8, 8)
    enlarged = to_side_32(images).numpy()
    assert numpy.array_equal(enlarged, numpy.kron(images.numpy(), numpy.ones((4, 4), dtype=numpy.uint8)))


@settings(max_examples=20, deadline=None)
@given(st.integers(17, 31), st.integers(1, 3))
def test_other_sides_are_padded_alike_on_both_sides_and_keep_every_pixel(side, channels):
    images = random_images(2, channels, side, side)
    padded = to_side_32(images)
    assert tuple(padded.shape) == (2, channels, 32, 32)
    rows, columns = ((padded != 0).any(dim=0).any(dim=0).any(dim=dim).nonzero().squeeze(1) for dim in (1, 0))
    for filled in (rows, columns):
        before, after = filled[0].item(), 31 - filled[-1].item()
        assert after - before in (0, 1)
    assert padded.sum() == images.sum()


def test_the_border_is_black_before_normalisation():
    dataset = DATASETS["mnist"]
    raw = {split: (random_images(2, 1, 28, 28), torch.tensor([0, 1])) for split in ("train", "test")}
    normalised = normalise(prepare(raw, dataset).train_images, dataset)
    assert normalised[:, :, 0].unique().item() == pytest.approx(-0.1307 / 0.3081)
    assert (normalised[..., 2:30, 2:30] > -0.1307 / 0.3081).all()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "digits"])
def test_normalisation_is_by_channel_in_float32_and_leaves_the_bytes_alone(name):
    dataset = DATASETS[name]
    images = random_images(4, dataset.channels, 32, 32)
    before = images.clone()
    normalised = normalise(images, dataset)
    assert normalised.dtype == torch.float32
    for channel in range(dataset.channels):
        expected = (images[:, channel].numpy() / 255 - dataset.mean[channel]) / dataset.std[channel]
        numpy.testing.assert_allclose(normalised[:, channel].numpy(), expected, rtol=0, atol=1e-5)
    assert torch.equal(images, before)
    pixels = images.float()
    assert torch.equal(normalise(pixels, dataset), normalised)
    assert torch.equal(pixels, before.float())


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("mnist", [0.1307], [0.3081]),
        ("fashion_mnist", [0.5], [0.5]),
        ("cifar10", [0.4914, 0.4824, 0.4467], [0.2471, 0.2435, 0.2616]),
        ("cifar100", [0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
    ],
)
def test_constants_are_the_published_ones(name, mean, std):
    numpy.testing.assert_allclose(DATASETS[name].mean, mean, atol=1e-3)
    numpy.testing.assert_allclose(DATASETS[name].std, std, atol=1e-3)


def test_the_constants_of_digits_are_those_of_the_prepared_training_images(digits):
    pixels = digits.train_images.numpy() / 255
    assert round(pixels.mean(), 4) == DATASETS["digits"].mean[0]
    assert round(pixels.std(), 4) == DATASETS["digits"].std[0]
    normalised = normalise(digits.train_images, DATASETS["digits"]).double()
    assert normalised.mean().item() == pytest.approx(0, abs=1e-3)
    assert normalised.std().item() == pytest.approx(1, abs=1e-3)


def test_prepared_digits_have_the_catalogs_counts(digits):
    assert tuple(digits.train_images.shape) == (1297, 1, 32, 32)
    assert tuple(digits.train_labels.bincount().tolist()) == DATASETS["digits"].train_per_class
    assert tuple(digits.test_labels.bincount().tolist()) == DATASETS["digits"].test_per_class
    assert (digits.test_images.dtype, digits.test_labels.dtype) == (torch.uint8, torch.int64)


def test_prepared_clusters_are_one_fixed_data_set_of_float_vectors():
    prepared = prepare_dataset("clusters-k3-d5-s2.5", "no-such-folder")
    assert (tuple(prepared.train_images.shape), prepared.train_images.dtype) == ((3000, 5), torch.float32)
    again = prepare_dataset("clusters-k3-d5-s2.5", "elsewhere")
    assert all(torch.equal(tensor, again.to_tensors()[name]) for name, tensor in prepared.to_tensors().items())
    test, _ = gaussian_clusters(3, 5, 2.5, 1000, 0, "test")
    assert torch.equal(prepared.test_images, test)
    assert torch.equal(normalise(test, describe("clusters-k3-d5-s2.5")), test)


def test_prepared_data_survive_their_file_bit_for_bit(tmp_path, digits):
    write_tensors(digits.to_tensors(), tmp_path / "digits.safetensors")
    back = read_prepared(tmp_path / "digits.safetensors")
    assert list(back.to_tensors()) == ["train_images", "train_labels", "test_images", "test_labels"]
    for name, tensor in digits.to_tensors().items():
        assert back.to_tensors()[name].dtype == tensor.dtype
        assert torch.equal(back.to_tensors()[name], tensor)


def test_a_file_says_which_data_set_it_holds_and_one_that_does_not_is_still_read(tmp_path, digits):
    path = tmp_path / "prepared.safetensors"
    write_tensors(digits.to_tensors(), path)
    assert read_prepared(path).dataset is None
    write_tensors(digits.to_tensors(), path, {"dataset": "digits-8x8"})
    assert read_prepared(path).dataset == "digits-8x8"
    assert list(read_prepared(path).to_tensors()) == list(digits.to_tensors())


def test_a_file_that_lacks_a_tensor_or_is_cut_short_is_named_with_what_to_do(tmp_path, digits):
    path = tmp_path / "digits.safetensors"
    tensors = digits.to_tensors()
    del tensors["test_labels"]
    with pytest.raises(InputError, match="test_labels missing"):
        PreparedData.from_tensors(tensors)
    write_tensors(tensors, path)
    with pytest.raises(InputError, match=r"digits\.safetensors: test_labels missing.*delete it and run"):
        read_prepared(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"digits\.safetensors.*delete it \(rm \S+\) and run"):
        read_prepared(path)


def test_a_split_is_train_or_test(digits):
    assert digits.split("test")[0] is digits.test_images
    assert digits.split("train")[1] is digits.train_labels
    with pytest.raises(InputError, match="unknown split 'valid'; allowed: train, test"):
        digits.split("valid")


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="nearest valid name: digits"):
        prepare_dataset("digit", "no-such-folder")
