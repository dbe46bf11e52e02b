import pytest
import torch

from hessketch.federation_config import count_parameters
from hessketch.networks.registry import build_network
from hessketch.planning.sizes import Scale, network_size, size_of
from hessketch.runs import Run

RUN = Run("digits", 0, 26, "vgg11", "batch", 0.0625, "cross_entropy", "sgd", 0.1, 0)


def test_a_linear_layer_counts_two_operations_for_each_weight():
    size = size_of(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5, bias=False)), (3, 4), "linear")
    assert (size.flops, size.parameters, size.family) == (2 * 60, 60, "matrices")
    assert (size.activations, size.widest, size.layers, size.inputs, size.outputs) == (12 + 5, 12, 2, 12, 5)


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "3c3d", "mlp"])
def test_parameters_are_those_of_the_network_itself(name):
    size = network_size(name, "none", 0.25, "cifar10", "cross_entropy")
    network = {"name": name, "norm": "none", "width": 0.25}
    assert size.parameters == count_parameters("cifar10", network, "cross_entropy")


def test_a_network_that_is_measured_is_the_one_that_is_planned():
    model = build_network("resnet18", input_shape=(1, 32, 32), classes=10, width=0.0625)
    assert size_of(model, (1, 32, 32), "resnet18-batch-w0.0625") == network_size(
        "resnet18", "batch", 0.0625, "digits", "cross_entropy"
    )


def test_a_scale_multiplies_examples_and_widths():
    assert Scale(examples=2).trained_on(RUN) == 2 * 260
    assert Scale().examples_of("digits", None, "test") == 500
    assert Scale(width=2).network(RUN).label == "vgg11-batch-w0.125"
