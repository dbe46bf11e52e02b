"""The tape of tangents against torch.func's forward mode."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp

from hessketch.curvature.losses import LOSSES
from hessketch.curvature.operators import ComponentOperators, CurvatureOperator
from hessketch.curvature.tangents import TangentsUnsupported, record_tangents
from hessketch.networks.registry import build_network


class OnlyBackwards(torch.autograd.Function):
    """A square that knows no forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Squares(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.linear, self.last, self.function = nn.Linear(4, 5), nn.Linear(5, 3), function

    def forward(self, x):
        return self.last(self.function(self.linear(x)))


class InPlace(nn.Module):
    """Writes into its activations, and into a buffer of its own making."""

    def __init__(self):
        super().__init__()
        self.linear, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        hidden = self.linear(x)
        hidden = torch.nn.functional.relu_(hidden)
        padded = torch.zeros(len(x), 5, dtype=x.dtype)
        padded[:, 1:4] = hidden[:, 1:4]
        return self.last(padded).mul_(2)


def _network(model, inputs):
    names = [name for name, _ in model.named_parameters()]
    parameters = [p.detach().double().requires_grad_() for p in model.parameters()]
    model = model.double().eval()
    return lambda pieces: [functional_call(model, dict(zip(names, pieces, strict=True)), (inputs,))], parameters


def _direction(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]


def _jvp(network, parameters, direction):
    return jvp(lambda *p: network(p), tuple(parameters), tuple(direction))[1]


@pytest.mark.parametrize("name, norm", [("vgg11", "batch"), ("resnet18", "group"), ("resnet18_smooth", "batch")])
def test_the_tape_plays_the_jacobian_of_the_papers_networks_for_any_direction(name, norm):
    model = build_network(name, input_shape=(1, 32, 32), classes=3, width=1 / 32, norm=norm, seed=1)
    images = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    network, parameters = _network(model, images)
    first = _direction(parameters, 3)
    (outputs,), tangents, tape = record_tangents(network, parameters, first)
    torch.testing.assert_close(tangents, _jvp(network, parameters, first))
    for seed in (4, 5):
        other = _direction(parameters, seed)
        expected = _jvp(network, parameters, other)
        torch.testing.assert_close(tape.play(other), expected)
    assert outputs.requires_grad


def test_writing_in_place_into_activations_is_played_again():
    network, parameters = _network(InPlace(), torch.randn(6, 4, dtype=torch.float64))
    other = _direction(parameters, 1)
    expected = _jvp(network, parameters, other)
    tape = record_tangents(network, parameters, _direction(parameters, 0))[2]
    for _ in range(2):
        torch.testing.assert_close(tape.play(other), expected)


@pytest.mark.parametrize("make", [InPlace, lambda: Squares(OnlyBackwards.apply)])
def test_networks_without_forward_mode_or_with_writes_have_the_dense_matrices(make):
    torch.manual_seed(0)
    model = make().double().eval()
    plain = Squares(torch.square).double().eval() if isinstance(model, Squares) else model
    plain.load_state_dict(model.state_dict())
    batch = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    loss = LOSSES["cross_entropy"]
    names = [name for name, _ in plain.named_parameters()]
    shapes = [p.shape for p in plain.parameters()]

    def mean_loss(theta, fixed_slope=None):
        pieces = [piece.view(s) for piece, s in zip(theta.split([s.numel() for s in shapes]), shapes, strict=True)]
        outputs = functional_call(plain, dict(zip(names, pieces, strict=True)), (batch[0],))
        return loss(outputs, batch[1]).mean() if fixed_slope is None else (outputs * fixed_slope).sum() / 6

    theta = torch.cat([p.detach().reshape(-1) for p in plain.parameters()])
    slope = torch.autograd.functional.jacobian(lambda f: loss(f, batch[1]).sum(), plain(batch[0]).detach())
    full = torch.autograd.functional.hessian(mean_loss, theta)
    residual = torch.autograd.functional.hessian(lambda t: mean_loss(t, slope), theta)
    expected = {"hessian": full, "residual": residual, "ggn": full - residual}
    block = torch.eye(len(theta), dtype=torch.float64)
    for name, matrix in expected.items():
        for memory in (None, 0):
            torch.testing.assert_close(CurvatureOperator(name, model, loss, [batch], memory=memory) @ block, matrix)
    for name, product in ComponentOperators(model, loss, [batch]).products(block).items():
        torch.testing.assert_close(product, expected[name])


class Shared(nn.Module):
    """Products and sums whose parts are read again, broadcast, viewed or the output: nothing may be overwritten."""

    def __init__(self):
        super().__init__()
        self.linear, self.scale, self.shift = nn.Linear(4, 4), nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(1))

    def forward(self, x):
        a = self.linear(x)
        b = a * 2.0 * torch.arange(4.0, dtype=x.dtype)
        c = b + a * self.scale
        d = c + b * x
        e = (a.view(2, -1) * 3.0).view(-1, 4) + d * d
        f = self.shift + e * x
        return torch.cat([c + f, f * 2.0 * x, b.t()[:2].t()], dim=1)


def test_what_is_read_more_than_once_survives_the_fusing_of_passes():
    torch.manual_seed(1)
    network, parameters = _network(Shared(), torch.randn(6, 4, dtype=torch.float64))
    tape = record_tangents(network, parameters, _direction(parameters, 0))[2]
    names = {str(operation.function) for operation in tape._operations}
    assert "aten.addcmul.default" in names or "aten.addcmul_.default" in names
    for seed in (1, 2):
        other = _direction(parameters, seed)
        before = [piece.clone() for piece in other]
        torch.testing.assert_close(tape.play(other), _jvp(network, parameters, other))
        assert all(torch.equal(a, b) for a, b in zip(before, other, strict=True))


def test_an_operation_without_forward_mode_is_reported():
    network, parameters = _network(Squares(OnlyBackwards.apply), torch.randn(6, 4, dtype=torch.float64))
    with pytest.raises(TangentsUnsupported):
        record_tangents(network, parameters, _direction(parameters, 0))


def test_values_that_do_not_depend_on_the_parameters_have_zero_tangents():
    parameters = [torch.ones(3, requires_grad=True)]
    constant = torch.ones(2, 2)
    values, tangents, tape = record_tangents(lambda p: [constant * 2, 3 * p[0]], parameters, [torch.ones(3)])
    assert torch.equal(values[0], constant * 2) and torch.equal(tangents[0], torch.zeros(2, 2))
    constant_part, moving = tape.play([torch.arange(3.0)])
    assert torch.equal(constant_part, torch.zeros(2, 2)) and torch.equal(moving, 3 * torch.arange(3.0))
