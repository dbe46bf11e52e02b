"""The bound's terms in closed form, its invariance under rescaled layers, and the inverse of the binary divergence."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import nn

from hessketch.curvature import points
from hessketch.data.examples import Examples
from hessketch.dynamics import posterior
from hessketch.dynamics.exact import exact_curvature
from hessketch.dynamics.generalization_bound import (
    BOUNDS,
    binary_kl,
    binary_kl_inverse,
    generalization_bounds,
)
from hessketch.dynamics.posterior import initial_scales
from hessketch.errors import InputError
from hessketch.networks.layers import initialise
from hessketch.networks.mlp import mlp

FACTORS = (3.0, 1 / 7, 7 / 3)  # of the layers of the ReLU network; their product is 1


def examples(n: int = 60, seed: int = 0) -> Examples:
    """Three classes around three centres."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % 3
    noise = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return Examples(noise + 3 * torch.eye(4, dtype=torch.float64)[targets], targets, 3)


def trained() -> tuple[nn.Module, dict]:
    """A ReLU network after some steps, float64, biases included, and the state that it started from."""
    model, data = mlp(4, 3, hidden=(5, 6)).double(), examples()
    initialise(model, torch.Generator().manual_seed(0), "he")
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.inputs), data.targets).backward()
        optimizer.step()
    return model.eval(), start


@pytest.fixture(scope="module")
def network():
    return trained()


def rescaled(state: dict, factors=FACTORS) -> dict:
    """Layer l times its factor; its bias, which is added to what comes before it too, times all up to it."""
    scaled, product = {}, 1.0
    for (weight, bias), factor in zip(zip(*[iter(state)] * 2, strict=True), factors, strict=True):
        product *= factor
        scaled |= {weight: state[weight] * factor, bias: state[bias] * product}
    return scaled


def with_state(model: nn.Module, state: dict) -> nn.Module:
    other = mlp(4, 3, hidden=(5, 6)).double().eval()
    other.load_state_dict(state)
    return other


def bounds(model, start, train=None, test=None, loss="cross_entropy", exact=True, **options):
    train = examples() if train is None else train
    test = examples(90, seed=1) if test is None else test
    found = exact_curvature(model, loss, train) if exact else None
    return generalization_bounds(model, start, loss, train, test, **{"seed": 0, "exact": found} | options)


def test_rescaled_layers_of_a_relu_network_have_the_same_bounds(network):
    model, start = network
    other = with_state(model, rescaled(model.state_dict()))
    assert torch.allclose(model(examples().inputs), other(examples().inputs), rtol=1e-12, atol=1e-12)
    ours, theirs = (bounds(m, s) for m, s in ((model, start), (other, rescaled(start))))
    numbers = [name for name, kind in BOUNDS.items() if kind == "float64"]
    assert theirs[numbers].to_numpy() == pytest.approx(ours[numbers].to_numpy(), rel=1e-6)
    assert theirs.active.tolist() == ours.active.tolist() and 0 < ours.active.max() < 85
    assert theirs.chosen.tolist() == ours.chosen.tolist()


def test_the_hessian_diagonal_and_the_scales_of_rescaled_layers_are_rescaled_exactly(network):
    model, start = network
    other, data = with_state(model, rescaled(model.state_dict())), examples()
    ones = {name: torch.ones_like(tensor) for name, tensor in start.items()}
    factors = torch.cat([tensor.reshape(-1) for tensor in rescaled(ones).values()])
    ours, theirs = (exact_curvature(m, "cross_entropy", data).hessian.diagonal() for m in (model, other))
    assert torch.allclose(theirs * factors**2, ours, rtol=1e-9, atol=1e-12)
    scales, scaled = initial_scales(model, start, data.inputs), initial_scales(other, rescaled(start), data.inputs)
    assert torch.allclose(scaled, scales * factors, rtol=1e-12)


def test_scales_are_of_weights_of_outputs_and_of_normalisations():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 2, bias=False),
        nn.Linear(2, 2),
    )
    initialise(model, torch.Generator().manual_seed(1), "he")
    model[1].weight.data.fill_(0.5)
    model.eval()
    start = model.state_dict()
    found = initial_scales(model, start, torch.zeros(7, 2, 4, 4)).split([p.numel() for p in model.parameters()])
    assert all(len(set(piece.tolist())) == 1 for piece in found)
    kernel, offset, scale, shift, inner, last, end = (float(piece[0]) for piece in found)
    for value, name in ((kernel, "0.weight"), (inner, "4.weight"), (last, "5.weight")):
        assert value == pytest.approx(float(start[name].square().mean().sqrt()), rel=1e-6)
    assert scale == shift == 0.5
    # 18 inputs of unit variance behind every output of the convolution, fewer at the border
    assert 0.7 * kernel * math.sqrt(18) < offset < kernel * math.sqrt(18)
    assert end == pytest.approx(last * inner * math.sqrt(2) * math.sqrt(48) * 0.5 * 0.5 * offset, rel=0.9)


def test_batch_norm_which_knows_the_training_examples_is_refused():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double().eval()
    with pytest.raises(InputError, match="batch norm's running statistics"):
        bounds(model, model.state_dict(), exact=False)


def test_terms_of_a_linear_regression_are_those_worked_out_by_hand():
    """f = w x with inputs s_i e_i: H = diag(2 s_i^2 / 3); all start at 0.5, so the scale is 0.5."""
    model = nn.Linear(3, 1, bias=False).double().eval()
    start = {"weight": torch.full((1, 3), 0.5, dtype=torch.float64)}
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.5, 0.5, -0.5]]))
    train = Examples(torch.diag(torch.tensor([3.0, 2.0, 0.1], dtype=torch.float64)), torch.tensor([1, 0, 0]), 2)
    found = bounds(model, start, train, train, "mean_squared_error", sigmas=(1.0, 0.1), confidence=0.9)
    curvature = np.array([6.0, 8 / 3, 0.02 / 3])
    assert found.active.tolist() == [1, 0]  # 0.25 H = 1.5, 0.67, 0.002
    assert found.effective_curvature.tolist() == pytest.approx([math.log(0.25 * curvature[0]), 0.0])
    assert found.distance.tolist() == pytest.approx([(1 + 0 + 1) / 0.25, (1 + 0 + 1) / 0.0025])
    log_term = math.log(2 * 2 * 4 / 0.1) / 3
    assert found.log_term.tolist() == pytest.approx([log_term] * 2)
    assert found.right_hand_side[0] == pytest.approx((math.log(1.5) + 8) / 6 + log_term)
    assert found.train_error.tolist() == [1 / 3] * 2 and found.chosen.tolist() == [True, False]
    assert (found.diagonal == "exact").all() and (found.confidence == 0.9).all()


@pytest.mark.parametrize(("sigma", "deviation"), [(0.25, 0.5), (4.0, 1 / math.sqrt(2))])
def test_the_posterior_error_of_one_weight_is_the_normal_probability_of_the_wrong_sign(sigma, deviation):
    """f = w, H = 2, scale 2: as wide as a prior of deviation 0.5, but 1 / sqrt(H) where the prior's is 8."""
    model = nn.Linear(1, 1, bias=False).double().eval()
    with torch.no_grad():
        model.weight.fill_(0.8)
    right = Examples(torch.ones(4, 1, dtype=torch.float64), torch.tensor([1, 1, 1, 1]), 2)
    mixed = replace(right, targets=torch.tensor([1, 1, 1, 0]))
    start = {"weight": torch.full((1, 1), 2.0)}
    row = bounds(model, start, right, mixed, "mean_squared_error", sigmas=(sigma,), posterior_samples=3000).iloc[0]
    wrong = norm.cdf((0.5 - 0.8) / deviation)  # squared error draws outputs to 0 or 1: the border is 1/2
    error = math.sqrt(wrong * (1 - wrong) / 3000)
    assert row.posterior_train_error_standard_error == pytest.approx(error, rel=0.1)
    assert abs(row.posterior_train_error - wrong) < 4 * error
    assert row.posterior_test_error == pytest.approx(0.25 + 0.5 * row.posterior_train_error)
    assert (row.train_error, row.test_error) == (0.0, 0.25)


def test_the_bound_is_the_inverse_divergence_at_the_upper_limit_of_the_posterior_error(network):
    found = bounds(*network, sigmas=(0.3, 1.0), posterior_samples=100, confidence=0.8)
    for _, row in found.iterrows():
        limit = binary_kl_inverse(row.posterior_train_error, math.log(2 * 2 / 0.2) / 100)
        assert row.posterior_train_error < limit < row.bound
        assert binary_kl(limit, row.bound) == pytest.approx(row.right_hand_side, rel=1e-3) or row.bound == 1
    assert found.bound.idxmin() == found.chosen.idxmax() and found.chosen.sum() == 1


def test_more_examples_lower_the_bound():
    """The same examples again and again: everything but n stays."""
    model = nn.Linear(4, 3).double().eval()
    start = {name: torch.full_like(tensor, 0.5) for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.weight.copy_(torch.eye(4, dtype=torch.float64)[:3] * 1.5)
        model.bias.fill_(0.5)
    found = []
    for copies in (1, 4, 16):
        data = examples()
        data = replace(data, inputs=data.inputs.repeat(copies, 1), targets=data.targets.repeat(copies))
        found.append(bounds(model, start, data, sigmas=(0.5,)).iloc[0])
    values = [row.bound for row in found]
    assert values[0] > values[1] > values[2] and values[2] < 0.6
    assert len({round(row.effective_curvature + row.distance, 8) for row in found}) == 1
    assert len({row.posterior_train_error for row in found}) == 1


def test_a_wider_grid_pays_for_its_choice(network):
    alone, among = bounds(*network, sigmas=(1.0,)).iloc[0], bounds(*network, sigmas=(1.0, 2.0, 5.0, 9.0)).iloc[0]
    assert among.log_term - alone.log_term == pytest.approx(math.log(4) / 60)
    assert among.bound > alone.bound and among.posterior_train_error == alone.posterior_train_error


def test_an_estimated_diagonal_gives_nearly_the_terms_of_the_exact_one(network):
    exact = bounds(*network)
    estimated = bounds(*network, exact=False, products=400)
    assert (estimated.diagonal == "estimated").all()
    assert estimated.distance.to_numpy() == pytest.approx(exact.distance.to_numpy(), rel=1e-12)
    assert abs(estimated.active - exact.active).max() <= 8
    assert estimated.effective_curvature.to_numpy() == pytest.approx(
        exact.effective_curvature.to_numpy(), rel=0.25, abs=1
    )


def test_the_table_has_its_columns_and_types_and_a_seed_repeats_it(network):
    first, again, other = (bounds(*network, seed=seed) for seed in (3, 3, 4))
    assert {name: str(kind) for name, kind in first.dtypes.items()} == BOUNDS
    assert first.equals(again) and not first.equals(other) and first.notna().all().all()


def test_more_samples_begin_with_the_fewer_and_are_reported(network):
    told = []
    few = bounds(*network, sigmas=(1.0,), posterior_samples=2)
    more = bounds(*network, sigmas=(1.0,), posterior_samples=3, progress=lambda *numbers: told.append(numbers))
    assert 60 * 3 * more.posterior_train_error[0] >= 60 * 2 * few.posterior_train_error[0] - 1e-9
    assert told == [(3, 3)]


def test_limits_of_memory_do_not_change_the_result(network, monkeypatch):
    whole, told = bounds(*network, sigmas=(1.0,)), []
    monkeypatch.setattr(posterior, "_PARAMETERS_AT_ONCE", {"cpu": 82 * 63})
    monkeypatch.setattr(points, "_NUMBERS_AT_ONCE", {"cpu": 25 * 25})
    assert whole.equals(bounds(*network, sigmas=(1.0,), progress=lambda *numbers: told.append(numbers)))
    assert told == [(63, 200), (126, 200), (189, 200), (200, 200)]


@pytest.mark.parametrize(
    ("q", "divergence", "p"),
    [
        (0.0, 0.0, 0.0),
        (0.0, 0.1, -math.expm1(-0.1)),
        (1.0, 0.3, 1.0),
        (0.5, 0.2, (1 + math.sqrt(1 - math.exp(-0.4))) / 2),
    ],
)
def test_known_values_of_the_inverse_divergence(q, divergence, p):
    assert binary_kl_inverse(q, divergence) == pytest.approx(p, abs=2e-12)


probabilities = st.floats(0, 1)


@settings(max_examples=300, deadline=None)
@given(probabilities, st.floats(0, 20))
def test_the_inverse_divergence_inverts_and_stays_above(q, divergence):
    p = binary_kl_inverse(q, divergence)
    assert q <= p <= 1
    assert p == 1 or binary_kl(q, p) >= divergence - 1e-9  # rounded up
    assert binary_kl(q, max(q, p - 1e-9)) <= divergence + 1e-12


@settings(max_examples=100, deadline=None)
@given(probabilities, probabilities, st.floats(0, 5), st.floats(0, 5))
def test_the_inverse_divergence_grows_with_both_arguments_and_obeys_pinsker(q, r, first, second):
    assert binary_kl_inverse(q, first) <= binary_kl_inverse(q, first + second) + 1e-11
    assert binary_kl_inverse(min(q, r), first) <= binary_kl_inverse(max(q, r), first) + 1e-11
    assert binary_kl_inverse(q, first) <= q + math.sqrt(first / 2) + 1e-11


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-6, 1 - 1e-6))
def test_the_divergence_is_positive_but_between_equals(q, p):
    assert binary_kl(q, q) == pytest.approx(0, abs=1e-12)
    assert binary_kl(q, p) >= 2 * (q - p) ** 2 - 1e-12
    assert binary_kl(q, p) == pytest.approx(binary_kl(1 - q, 1 - p), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"sigmas": (1.0, 0.0)}, "sigmas are .*allowed: one or more different numbers above 0"),
        ({"sigmas": (-1.0,)}, "sigmas are"),
        ({"sigmas": ()}, "sigmas are"),
        ({"sigmas": 1.0}, r"sigmas is 1.0; give a list of numbers, such as \[1.0\]"),
        ({"sigmas": (1.0, 1.0)}, "sigmas are .* different"),
        ({"sigmas": (math.nan,)}, "sigmas are"),
        ({"confidence": 0.0}, "confidence is 0.0; allowed: numbers between 0 and 1"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"confidence": 95}, "confidence is 95"),
        ({"posterior_samples": 1}, "posterior_samples is 1; allowed: integers from 2"),
        ({"loss": "nll"}, "loss 'nll' is unknown"),
    ],
)
def test_bad_arguments_are_refused(network, bad, message):
    data, loss = examples(), bad.get("loss", "cross_entropy")
    with pytest.raises(InputError, match=message):
        generalization_bounds(*network, loss, data, data, seed=0, **{k: v for k, v in bad.items() if k != "loss"})


def test_the_initial_state_and_curvature_of_another_network_and_no_examples_are_refused(network):
    model, start = network
    data, other = examples(), mlp(4, 3, hidden=(5, 7)).double().eval()
    with pytest.raises(InputError, match=r"another network: 3.weight has shape \(7, 5\) and the network's is \(6, 5\)"):
        bounds(model, other.state_dict())
    with pytest.raises(InputError, match=r"1.bias has shape none, it is missing"):
        bounds(model, {name: tensor for name, tensor in start.items() if name != "1.bias"})
    with pytest.raises(InputError, match=r"9.weight has shape \(1,\) and the network's is none"):
        bounds(model, start | {"9.weight": torch.zeros(1)})
    with pytest.raises(InputError, match="exact holds 91 parameters, the network 82"):
        curvature = exact_curvature(other, "cross_entropy", data)
        generalization_bounds(model, start, "cross_entropy", data, data, seed=0, exact=curvature)
    with pytest.raises(InputError, match="60 training and 0 test examples"):
        bounds(model, start, test=replace(data, inputs=data.inputs[:0], targets=data.targets[:0]))


@pytest.mark.parametrize("apart", [1e-6, 1e-9, -1e-9])
def test_the_divergence_of_near_probabilities_keeps_its_digits(apart):
    """Its series is d^2 / (2 q (1 - q)) (1 - (2/3) d (1 - 2 q) / (q (1 - q)) + ...)."""
    q = 0.84375
    d = (q + apart) - q
    expected = d**2 / (2 * q * (1 - q)) * (1 - 2 / 3 * d * (1 - 2 * q) / (q * (1 - q)))
    assert binary_kl(q, q + apart) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_or_divergence_is_refused(value):
    with pytest.raises(InputError, match="allowed: probabilities"):
        binary_kl(value, 0.5)
    with pytest.raises(InputError, match="allowed: probabilities"):
        binary_kl(0.5, value)
    if not value >= 0:
        with pytest.raises(InputError, match="divergence is"):
            binary_kl_inverse(0.5, value)


def test_a_module_in_place_of_its_state_and_a_pair_of_tensors_are_refused(network):
    model, start = network
    data = examples()
    with pytest.raises(InputError, match=r"initial_state is Sequential; give its state_dict\(\)"):
        generalization_bounds(model, model, "cross_entropy", data, data, seed=0)
    with pytest.raises(InputError, match="initial_state is Tensor; give the state_dict"):
        generalization_bounds(model, torch.zeros(3), "cross_entropy", data, data, seed=0)
    for train, test, name in (
        ((data.inputs, data.targets), data, "train"),
        (data, (data.inputs, data.targets), "test"),
    ):
        with pytest.raises(InputError, match=f"{name} is tuple; give hessketch.data.examples.Examples"):
            generalization_bounds(model, start, "cross_entropy", train, test, seed=0)


def test_examples_of_another_precision_are_taken_in_that_of_the_weights(network):
    single = replace(examples(), inputs=examples().inputs.float())
    same = replace(single, inputs=single.inputs.double())
    found, expected = (bounds(*network, train=e, test=e, exact=False, posterior_samples=5) for e in (single, same))
    assert found.equals(expected)


@pytest.mark.parametrize("exact", [True, False])
def test_a_loss_may_be_a_function(network, exact):
    options = {"exact": exact, "posterior_samples": 5}
    found = bounds(*network, loss=nn.CrossEntropyLoss(), **options)
    expected = bounds(*network, **options)
    numbers = expected.select_dtypes("float").columns
    np.testing.assert_allclose(found[numbers], expected[numbers], rtol=1e-6)


def test_a_function_tells_which_predictions_of_a_single_output_are_right():
    """Outputs of 0.3 are nearer to 0 than to 1, and above 0."""
    model = nn.Linear(1, 1, bias=False).double().eval()
    start = {"weight": torch.ones(1, 1, dtype=torch.float64)}
    model.load_state_dict({"weight": torch.tensor([[0.3]])})
    data = Examples(torch.ones(4, 1, dtype=torch.float64), torch.tensor([0, 0, 0, 1]), 2)
    for loss in ("mean_squared_error", lambda o, t: nn.functional.mse_loss(o[:, 0], t.to(o.dtype))):
        table = generalization_bounds(model, start, loss, data, data, posterior_samples=2, seed=0)
        assert (table.train_error == 0.25).all()
    table = generalization_bounds(model, start, "binary_cross_entropy", data, data, posterior_samples=2, seed=0)
    assert (table.train_error == 0.75).all()
