"""GGN and second moment of the output gradients, by the smaller of two matrices, against autograd and the operators."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from hessketch.curvature import output_gradients
from hessketch.curvature.losses import LOSSES, cross_entropy, mean_squared_error
from hessketch.curvature.operators import ggn
from hessketch.curvature.output_gradients import OutputMoment, ggn_moment, output_gradient_moment
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.mlp import mlp

P = 5 * 4 + 4 + 4 * 3 + 3


def network(outputs: int = 3, norm: str = "none") -> nn.Module:
    torch.manual_seed(0)
    return mlp(5, outputs, hidden=(4,), norm=norm, activation=nn.Tanh).double().eval()


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Unflatten(1, (1, 1, 5)), nn.Conv2d(1, 3, (1, 2)), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d((1, 2))]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 3)).double().eval()


def examples(n: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(classes, (n,), generator=generator)


def whole(moment: OutputMoment) -> torch.Tensor:
    if moment.rows is None:
        return moment.matrix
    torch.testing.assert_close(moment.matrix, moment.rows @ moment.rows.T, rtol=1e-12, atol=1e-15)
    return moment.rows.T @ moment.rows


def dense(operator) -> torch.Tensor:
    return operator @ torch.eye(operator.shape[0], dtype=torch.float64)


@pytest.mark.parametrize("n", [4, 60])  # fewer rows than parameters, and more
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", [network(), network(norm="batch"), convolutional()], ids=["mlp", "norm", "conv"])
def test_the_ggn_is_that_of_the_operator(model, loss, n):
    inputs, targets = examples(n)
    found = ggn_moment(model, loss, inputs, targets)
    expected = dense(ggn(model, LOSSES[loss], [(inputs, targets)]))
    assert loss == "sigmoid_squared_error" or (found.rows is None) == (n == 60)
    torch.testing.assert_close(whole(found), expected, rtol=1e-10, atol=1e-13)


def test_a_loss_that_is_not_convex_has_no_gram_matrix_and_negative_eigenvalues_too():
    model, (inputs, targets) = network(), examples(4)
    with torch.no_grad():
        model[3].weight *= 30  # sigmoids far from 1/2, where their squares bend down
    found = ggn_moment(model, "sigmoid_squared_error", inputs, targets)
    expected = dense(ggn(model, LOSSES["sigmoid_squared_error"], [(inputs, targets)]))
    assert found.rows is None and float(torch.linalg.eigvalsh(found.matrix)[0]) < -1e-3
    torch.testing.assert_close(found.matrix, expected, rtol=1e-10, atol=1e-13)


def test_a_single_output_and_a_loss_that_is_a_mean_do_as_well():
    inputs, targets = examples(7, 2)
    found = ggn_moment(network(1), "binary_cross_entropy", inputs, targets)
    expected = dense(ggn(network(1), LOSSES["binary_cross_entropy"], [(inputs, targets)]))
    torch.testing.assert_close(whole(found), expected, rtol=1e-10, atol=1e-13)
    inputs, targets = examples(7)
    means = whole(ggn_moment(network(), nn.CrossEntropyLoss(), inputs, targets))
    torch.testing.assert_close(means, whole(ggn_moment(network(), cross_entropy, inputs, targets)))


@pytest.mark.parametrize("n", [4, 60])
@pytest.mark.parametrize("at_once", [1, 2**27])  # bytes: one example at a time, or all
def test_the_unweighted_moment_is_that_of_autograds_jacobian(n, at_once, monkeypatch):
    monkeypatch.setattr(output_gradients, "_CHUNK_BYTES", at_once)
    model, (inputs, _) = network(), examples(n)
    named = {name: parameter.detach() for name, parameter in model.named_parameters()}
    jacobian = jacrev(lambda pieces: functional_call(model, pieces, (inputs,)))(named)
    rows = torch.cat([piece.flatten(2) for piece in jacobian.values()], 2).flatten(0, 1)
    found = output_gradient_moment(model, inputs)
    assert (found.rows is None) == (n == 60)
    torch.testing.assert_close(whole(found), rows.T @ rows / n, rtol=1e-11, atol=1e-14)


def test_softmax_leaves_a_row_less_an_example_than_there_are_outputs():
    inputs, targets = examples(4)
    assert len(ggn_moment(network(), cross_entropy, inputs, targets).rows) == 4 * (3 - 1)
    assert len(ggn_moment(network(), mean_squared_error, inputs, targets).rows) == 4 * 3
    assert len(output_gradient_moment(network(), inputs).rows) == 4 * 3


def test_mse_weights_the_output_gradients_alike():
    inputs, targets = examples(20)
    weighted = whole(ggn_moment(network(), mean_squared_error, inputs, targets))
    torch.testing.assert_close(weighted, whole(output_gradient_moment(network(), inputs)) * 2 / 3)


@pytest.mark.parametrize("n", [4, 60])
def test_eigenvectors_are_those_of_the_whole_matrix(n):
    inputs, targets = examples(n)
    moment = ggn_moment(network(), cross_entropy, inputs, targets)
    values, vectors = torch.linalg.eigh(moment.matrix)
    found = moment.eigenvectors(vectors[:, -3:])
    torch.testing.assert_close(found.T @ found, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(whole(moment) @ found, found * values[-3:], rtol=1e-10, atol=1e-13)


def test_a_float32_model_gives_float64_and_frozen_parameters_are_left_out():
    inputs, targets = examples(6)
    exact = whole(ggn_moment(network(), cross_entropy, inputs, targets))
    model = network().float()
    found = whole(ggn_moment(model, cross_entropy, inputs.float(), targets))
    assert found.dtype == torch.float64 and next(model.parameters()).dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)
    partly = network()
    partly[1].weight.requires_grad_(False)
    torch.testing.assert_close(whole(ggn_moment(partly, cross_entropy, inputs, targets)), exact[20:, 20:])


def test_what_makes_no_sense_is_refused():
    model, (inputs, targets) = network(), examples(6)
    with pytest.raises(InputError, match="5 inputs and 6 targets"):
        ggn_moment(model, cross_entropy, inputs[:5], targets)
    with pytest.raises(InputError, match="no examples"):
        output_gradient_moment(model, inputs[:0])
    with pytest.raises(InputError, match="eval"):
        output_gradient_moment(network(norm="batch").train(), inputs)
    with pytest.raises(InputError, match=r"outputs have shape \(6, 3, 1\)"):
        output_gradient_moment(nn.Sequential(model, nn.Unflatten(1, (3, 1))).eval(), inputs)
    with pytest.raises(InputError, match="GiB are free"):
        output_gradient_moment(model, inputs, memory=2**27)
    with torch.no_grad():
        model[1].bias[0] = math.inf
    with pytest.raises(NotFiniteError):
        output_gradient_moment(model, inputs * 0 - 1e400)
