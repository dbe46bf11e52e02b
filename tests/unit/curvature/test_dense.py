import pytest
import torch
from torch import nn
from torch.func import functional_call

from hessketch.curvature.dense import dense_hessian, dense_moments
from hessketch.curvature.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.mlp import mlp


def small_mlp(outputs: int = 3, norm: str = "none") -> nn.Module:
    torch.manual_seed(0)
    return mlp(5, outputs, hidden=(4, 3), norm=norm, activation=nn.Tanh).double().eval()


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Unflatten(1, (1, 1, 5)), nn.Conv2d(1, 3, (1, 2)), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d((1, 2))]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 3)).double().eval()


def examples(n: int = 9, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 5, generator=generator, dtype=torch.float64), torch.randint(
        classes, (n,), generator=generator
    )


def oracle(model: nn.Module, loss, inputs, targets) -> torch.Tensor:
    """By torch.func.hessian of one flat vector."""
    named = dict(model.named_parameters())

    def mean_loss(theta: torch.Tensor) -> torch.Tensor:
        pieces = theta.split([q.numel() for q in named.values()])
        shaped = {n: piece.view_as(q) for (n, q), piece in zip(named.items(), pieces, strict=True)}
        return loss(functional_call(model, shaped, (inputs,)), targets).mean()

    return torch.func.hessian(mean_loss)(torch.cat([q.detach().flatten() for q in named.values()]))


@pytest.mark.parametrize(
    "model, loss, outputs",
    [
        (small_mlp(), cross_entropy, 3),
        (small_mlp(norm="batch"), mean_squared_error, 3),
        (small_mlp(1), binary_cross_entropy, 1),
        (convolutional(), cross_entropy, 3),
    ],
)
def test_it_is_the_hessian_of_the_mean_loss(model, loss, outputs):
    inputs, targets = examples(classes=max(outputs, 2))
    found = dense_hessian(model, loss, [(inputs, targets)])
    torch.testing.assert_close(found, oracle(model, loss, inputs, targets), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("sizes, chunk", [([9], 1), ([4, 5], 7), ([1, 2, 6], None), ([9], 10_000)])
def test_neither_batches_nor_chunks_change_it(sizes, chunk):
    model, (inputs, targets) = small_mlp(), examples()
    whole = dense_hessian(model, cross_entropy, [(inputs, targets)])
    batches = zip(inputs.split(sizes), targets.split(sizes), strict=True)
    torch.testing.assert_close(dense_hessian(model, cross_entropy, batches, chunk=chunk), whole, rtol=1e-11, atol=1e-14)


def test_it_is_symmetric_bit_by_bit():
    found = dense_hessian(small_mlp(), cross_entropy, [examples()])
    assert torch.equal(found, found.T)


def test_a_loss_that_is_a_mean_itself_counts_examples_once():
    model, (inputs, targets) = small_mlp(), examples()
    batches = [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])]
    found = dense_hessian(model, nn.CrossEntropyLoss(), batches)
    torch.testing.assert_close(found, oracle(model, cross_entropy, inputs, targets), rtol=1e-10, atol=1e-13)


def test_a_float32_model_gives_a_float64_hessian_and_stays_as_it_is():
    model, (inputs, targets) = convolutional().float(), examples()
    inputs = inputs.float()
    before = {name: (t.clone(), t._version) for name, t in model.state_dict().items()}
    found = dense_hessian(model, cross_entropy, [(inputs, targets)])
    for name, t in model.state_dict().items():
        assert t.dtype == before[name][0].dtype and torch.equal(t, before[name][0]) and t._version == before[name][1]
    expected = oracle(model.double(), cross_entropy, inputs.double(), targets)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_fixed_parameters_have_no_row():
    model, (inputs, targets) = small_mlp(), examples()
    whole = oracle(model, cross_entropy, inputs, targets)
    model[1].requires_grad_(False)  # the first 24 parameters
    found = dense_hessian(model, cross_entropy, [(inputs, targets)])
    torch.testing.assert_close(found, whole[24:, 24:], rtol=1e-10, atol=1e-13)


def test_cross_entropys_hessian_is_the_second_moment_less_the_curvature_of_probabilities():
    """H = M - (1/n) sum_i (d2 p_i) / p_i with p_i the probability of example i's label."""
    model, (inputs, targets) = small_mlp(), examples()
    found = dense_hessian(model, cross_entropy, [(inputs, targets)])
    moment = torch.zeros_like(found)
    curved = torch.zeros_like(found)
    for x, y in zip(inputs, targets, strict=True):
        gradients = torch.autograd.grad(cross_entropy(model(x[None]), y[None]).sum(), list(model.parameters()))
        row = torch.cat([g.flatten() for g in gradients])
        moment += torch.outer(row, row) / len(targets)
        probability = model(x[None]).softmax(1)[0, y].item()
        second = oracle(model, lambda outputs, label: outputs.softmax(1)[:, label], x[None], y)
        curved += second / probability / len(targets)
    torch.testing.assert_close(found, moment - curved, rtol=1e-10, atol=1e-13)
    assert (found - moment).norm() > 0.1 * found.norm()  # the two matrices do differ


def test_progress_counts_rows_over_all_batches():
    inputs, targets = examples()
    calls = []
    batches = [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    p = len(dense_hessian(small_mlp(), cross_entropy, batches, chunk=20, progress=lambda *call: calls.append(call)))
    assert calls[-1] == (2 * p, 2 * p) and calls[0] == (20, 2 * p)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_too_little_memory_is_refused_with_what_is_needed():
    model = small_mlp()
    p = sum(q.numel() for q in model.parameters())
    with pytest.raises(InputError, match=f"Hessian of {p} parameters.*GiB are free"):
        dense_hessian(model, cross_entropy, [examples()], memory=8 * p * p - 1)
    assert len(dense_hessian(model, cross_entropy, [examples()], memory=8 * p * p)) == p


def test_train_mode_no_examples_and_a_chunk_of_none_are_refused():
    with pytest.raises(InputError, match="eval"):
        dense_hessian(small_mlp().train(), cross_entropy, [examples()])
    with pytest.raises(InputError, match="no examples"):
        dense_hessian(small_mlp(), cross_entropy, [])
    with pytest.raises(InputError, match="chunk"):
        dense_hessian(small_mlp(), cross_entropy, [examples()], chunk=0)


class Twisted(torch.autograd.Function):
    """|f|^2 whose slope is not its own: no matrix of second derivatives is symmetric."""

    @staticmethod
    def forward(ctx, outputs):
        ctx.save_for_backward(outputs)
        return outputs.square().sum(1)

    @staticmethod
    def backward(ctx, slope):
        return slope[:, None] * ctx.saved_tensors[0].cumsum(1)


def test_a_loss_whose_slope_is_no_gradient_is_refused():
    with pytest.raises(InputError, match="not symmetric"):
        dense_hessian(small_mlp(), lambda outputs, _: Twisted.apply(outputs), [examples()])


def test_batches_that_are_no_pairs_are_refused():
    inputs, targets = examples()
    for batches in ((inputs, targets), [inputs], [(inputs, targets, targets)]):
        with pytest.raises(InputError, match="pairs"):
            dense_hessian(small_mlp(), cross_entropy, batches)


@pytest.mark.parametrize("network", [small_mlp(), small_mlp().float()])
@pytest.mark.parametrize("as_function", [False, True])
def test_a_mean_with_class_weights_is_refused_before_its_precision_matters(network, as_function):
    weight = torch.tensor([1.0, 5.0, 0.2], dtype=next(network.parameters()).dtype)
    loss = nn.CrossEntropyLoss(weight)
    if as_function:
        loss = lambda outputs, targets: nn.functional.cross_entropy(outputs, targets, weight)  # noqa: E731
    with pytest.raises(InputError, match="mean with weights"):
        dense_hessian(network, loss, [examples()])


def test_a_loss_may_be_given_by_its_name():
    model = small_mlp()
    found = dense_hessian(model, "cross_entropy", [examples()])
    assert torch.equal(found, dense_hessian(model, cross_entropy, [examples()]))
    with pytest.raises(InputError, match="'mse' is unknown"):
        dense_hessian(model, "mse", [examples()])


class AlwaysDropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5)


def test_a_network_with_other_outputs_each_time_is_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), AlwaysDropping(), nn.Linear(8, 3)).double().eval()
    with pytest.raises(InputError, match="other outputs each time"):
        dense_hessian(model, cross_entropy, [examples()])


def test_weights_that_have_diverged_are_an_error():
    model = small_mlp()
    with torch.no_grad():
        model[-1].weight[0, 0] = torch.inf
    with pytest.raises(NotFiniteError, match="diverged"):
        dense_hessian(model, cross_entropy, [examples()])


def test_moments_of_two_gradients_are_the_closed_form():
    a, b = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, -2.0, 4.0])
    mean, second, covariance = dense_moments(torch.stack([a, b]))
    half = (a - b).double() / 2
    assert mean.tolist() == [2.0, 0.0, 2.0] and mean.dtype == torch.float64
    torch.testing.assert_close(second, (torch.outer(a, a) + torch.outer(b, b)).double() / 2)
    torch.testing.assert_close(covariance, torch.outer(half, half))


def test_a_small_covariance_survives_a_large_mean():
    spread = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-6
    _, _, covariance = dense_moments(spread + 1e4)
    torch.testing.assert_close(covariance, torch.cov(spread.T, correction=0), rtol=1e-5, atol=1e-17)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 2, 2)])
def test_moments_of_anything_but_rows_are_refused(shape):
    with pytest.raises(InputError, match="one gradient a row"):
        dense_moments(torch.zeros(shape))
