"""One-step loss changes against a quadratic loss, where the second order is all there is, and against plain loops."""

import math
from dataclasses import replace
from itertools import combinations, product

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from hessketch.curvature import points
from hessketch.curvature.losses import cross_entropy, loss_function
from hessketch.data.examples import Examples
from hessketch.dynamics import mini_batches, step_moments
from hessketch.dynamics.exact import exact_curvature
from hessketch.dynamics.loss_change import LOSS_CHANGES, loss_changes
from hessketch.dynamics.mini_batches import draw_mini_batches
from hessketch.dynamics.schemes import SCHEMES, make_scheme
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.registry import build_network


def some_examples(n: int, shape: tuple[int, ...], classes: int = 3, dtype=torch.float64) -> Examples:
    generator = torch.Generator().manual_seed(n)
    inputs = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return Examples(inputs.to(dtype), torch.randint(0, classes, (n,), generator=generator), classes)


def linear_model(inputs: int = 4, classes: int = 3, dtype=torch.float64) -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(inputs, classes).to(dtype).eval()


def mlp(dtype=torch.float64) -> nn.Module:
    return build_network("mlp", input_shape=(4,), classes=3, width=0.02, norm="none", seed=2).to(dtype).eval()


def conv_net(dtype=torch.float64) -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    )
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    return model.to(dtype).eval()


CASES = {
    "mlp": (mlp, (4,), "cross_entropy"),
    "linear model": (linear_model, (4,), "mean_squared_error"),
    "convolution, batch norm and max pooling": (conv_net, (2, 4, 4), "cross_entropy"),
}


@pytest.fixture(params=CASES)
def case(request):
    build, shape, loss = CASES[request.param]
    return build(), some_examples(30, shape), loss


def quadratic(n: int = 30, **arguments):
    """The table of a linear model with squared error, float64, exact unless told otherwise."""
    model, examples = linear_model(), some_examples(n, (4,))
    exact = exact_curvature(model, "mean_squared_error", examples)
    given = {"batch_size": 5, "learning_rate": 0.2, "seed": 0, "samples": 200, "exact": exact} | arguments
    return loss_changes(model, "mean_squared_error", examples, **given).set_index("scheme")


def loop(model: nn.Module, loss: str, examples: Examples, batches, scheme) -> torch.Tensor:
    """Delta of each mini-batch by plain automatic differentiation and a step on a copy of the weights."""
    function, parameters = loss_function(loss), list(model.parameters())
    changes = []
    for indices in batches:
        own = function(model(examples.inputs[indices]), examples.targets[indices]).mean()
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(own, parameters)])
        step = scheme.steps(gradient[None])[0].split([q.numel() for q in parameters])
        with torch.no_grad():
            before = function(model(examples.inputs), examples.targets).mean()
            kept = [q.clone() for q in parameters]
            for q, s in zip(parameters, step, strict=True):
                q += s.view_as(q)
            changes.append(function(model(examples.inputs), examples.targets).mean() - before)
            for q, k in zip(parameters, kept, strict=True):
                q.copy_(k)
    return torch.stack(changes).double()


def scheme_at(name, model, loss, examples, learning_rate, batch_size):
    rows = exact_curvature(model, loss, examples).gradients
    share = (len(examples) - batch_size) / (len(examples) - 1) / batch_size
    return make_scheme(name, learning_rate, rows.mean(0), rows.var(0, correction=0), share)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_on_a_quadratic_the_mean_over_all_mini_batches_is_the_predicted_one(scheme, batch_size):
    """Every mini-batch that there is, enumerated: drawing without replacement is in the prediction exactly."""
    model, examples, loss = linear_model(), some_examples(7, (4,)), "mean_squared_error"
    made = scheme_at(scheme, model, loss, examples, 0.3, batch_size)
    every = loop(model, loss, examples, [list(c) for c in combinations(range(7), batch_size)], made)
    row = quadratic(7, batch_size=batch_size, learning_rate=0.3, schemes=(scheme,)).loc[scheme]
    assert row.step_size == pytest.approx(made.step_size)
    assert row.predicted_mean == pytest.approx(float(every.mean()), rel=1e-10)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_on_a_quadratic_mean_and_deviation_are_as_predicted(scheme):
    row = quadratic(60, batch_size=20, samples=4000, learning_rate=0.1, schemes=(scheme,)).loc[scheme]
    assert abs(row["mean"] - row.predicted_mean) < 4 * row.standard_error
    assert row.standard_deviation == pytest.approx(row.predicted_standard_deviation, rel=0.06)
    assert row.predicted_mean == pytest.approx(row.predicted_first + row.predicted_drift + row.predicted_noise)


def test_the_deviation_of_a_small_step_is_that_of_its_linear_part():
    """One parameter and one output, f = w: Delta = -eta L' g to first order, of deviation eta |L'| sqrt(c/m var g)."""
    model, targets = nn.Linear(1, 1, bias=False).double().eval(), torch.tensor([0, 1, 1, 1, 0, 1])
    with torch.no_grad():
        model.weight.fill_(2.0)
    examples = Examples(torch.ones(6, 1, dtype=torch.float64), targets, 2)
    exact = exact_curvature(model, "mean_squared_error", examples)
    changes = loss_changes(
        model, "mean_squared_error", examples, batch_size=2, learning_rate=1e-6, seed=0, exact=exact, schemes=("fixed",)
    )
    gradients = 2 * (2.0 - targets.double())
    share = (6 - 2) / (6 - 1) / 2
    expected = 1e-6 * gradients.mean() * (share * gradients.var(correction=0)).sqrt()
    assert changes.predicted_first[0] == pytest.approx(-1e-6 * float(gradients.mean()) ** 2)
    assert changes.predicted_standard_deviation[0] == pytest.approx(float(expected), rel=1e-5)


def test_bounds_on_a_quadratic_in_one_dimension_are_in_closed_form():
    """L = w^2 in mean: Delta = -eta mu g + eta^2 g^2 with g normal; at eta = 1/H = 1/2 the drift halves the descent."""
    model, targets = nn.Linear(1, 1, bias=False).double().eval(), torch.tensor([0, 1] * 4)
    with torch.no_grad():
        model.weight.fill_(1.5)
    examples = Examples(torch.ones(8, 1, dtype=torch.float64), targets, 2)
    exact = exact_curvature(model, "mean_squared_error", examples)
    row = loss_changes(
        model, "mean_squared_error", examples, batch_size=3, learning_rate=0.5, seed=0, exact=exact, schemes=("fixed",)
    ).iloc[0]
    mu, variance, x = 2.0, 1.0 * (8 - 3) / (8 - 1) / 3, -math.log(0.05)
    a = 0.25 * variance  # (eta^2 / 2) H Sigma c / m with H = 2; the linear part -eta mu + eta^2 H mu is zero
    assert row.predicted_first == pytest.approx(-0.5 * mu**2)
    assert row.predicted_drift == pytest.approx(0.25 * mu**2)
    assert row.predicted_noise == pytest.approx(a)
    assert row.predicted_standard_deviation == pytest.approx(math.sqrt(2) * a)
    assert row.bound_upper == pytest.approx(row.predicted_mean + 2 * math.sqrt(x) * a + 2 * x * a)
    assert row.bound_lower == pytest.approx(row.predicted_mean - 2 * math.sqrt(x) * a)
    assert row.regime == "decreases"


@pytest.mark.parametrize("exactly", [True, False])
def test_vectorised_steps_equal_a_plain_loop(case, exactly):
    model, examples, loss = case
    exact = exact_curvature(model, loss, examples) if exactly else None
    batches = draw_mini_batches(30, 4, 12, 9)
    tables = {
        chunk: loss_changes(
            model, loss, examples, batch_size=4, learning_rate=0.2, samples=12, seed=9, exact=exact, chunk=chunk
        ).set_index("scheme")
        for chunk in (None, 1, 5)
    }
    deltas = {
        name: loop(model, loss, examples, batches, scheme_at(name, model, loss, examples, 0.2, 4)) for name in SCHEMES
    }
    for (name, delta), found in product(deltas.items(), tables.values()):
        row = found.loc[name]
        assert row["mean"] == pytest.approx(float(delta.mean()), rel=1e-9)
        assert row.standard_deviation == pytest.approx(float(delta.std()), rel=1e-9)
        assert row.q10 == pytest.approx(float(delta.quantile(0.1)), rel=1e-9)
        assert row.share_decreasing == pytest.approx(float((delta < 0).double().mean()))
        assert row.standard_error == pytest.approx(float(delta.std()) / math.sqrt(12), rel=1e-9)


@pytest.mark.parametrize("exactly", [True, False])
def test_limits_of_memory_do_not_change_the_result(case, exactly, monkeypatch):
    """A batch larger than what a graph may hold is differentiated in pieces, one mini-batch after the other."""
    model, examples, loss = case
    arguments = {"batch_size": 7, "learning_rate": 0.2, "samples": 5, "seed": 0, "probes": 3}
    arguments["exact"] = exact_curvature(model, loss, examples) if exactly else None
    whole = loss_changes(model, loss, examples, **arguments)
    space = points.ParameterSpace(model)
    monkeypatch.setattr(points, "_NUMBERS_AT_ONCE", {"cpu": 4 * space.widest(examples.inputs)})
    monkeypatch.setattr(mini_batches, "_PARAMETERS_AT_ONCE", {"cpu": 2 * len(space.theta)})
    monkeypatch.setattr(step_moments, "_GRADIENT_NUMBERS", 13 * len(space.theta))
    found = loss_changes(model, loss, examples, **arguments)
    numbers = whole.select_dtypes("float").columns
    assert found[numbers].to_numpy() == pytest.approx(whole[numbers].to_numpy(), rel=1e-8)


def test_operators_predict_what_the_matrices_do(case):
    """30 examples: with as many probes the form is known exactly, with fewer nearly."""
    model, examples, loss = case
    arguments = {"batch_size": 4, "learning_rate": 0.2, "samples": 2, "seed": 0}
    exact = loss_changes(model, loss, examples, exact=exact_curvature(model, loss, examples), **arguments)
    columns = [name for name in LOSS_CHANGES if name.startswith(("predicted", "bound", "step"))]
    whole = loss_changes(model, loss, examples, probes=30, **arguments)
    assert whole[columns].to_numpy() == pytest.approx(exact[columns].to_numpy(), rel=1e-7)
    assert (whole.regime == exact.regime).all() and exact.exact.all() and not whole.exact.any()
    few = loss_changes(model, loss, examples, probes=12, **arguments)
    assert few.predicted_noise.to_numpy() == pytest.approx(exact.predicted_noise.to_numpy(), rel=0.05)
    assert few.bound_upper.to_numpy() == pytest.approx(exact.bound_upper.to_numpy(), rel=0.05)


@pytest.mark.parametrize("exactly", [True, False])
def test_the_network_in_single_precision_gives_the_same_to_its_rounding(exactly):
    examples, loss = some_examples(30, (2, 4, 4)), "cross_entropy"
    rough = replace(examples, inputs=examples.inputs.float())
    arguments = {"batch_size": 4, "learning_rate": 0.2, "samples": 20, "seed": 0, "probes": 30}
    truth = loss_changes(conv_net(), loss, examples, **arguments)
    model = conv_net(torch.float32)
    exact = exact_curvature(model, loss, rough) if exactly else None
    found = loss_changes(model, loss, rough, exact=exact, **arguments)
    columns = ["mean", "standard_deviation", "q01", "q99", "predicted_mean", "bound_lower", "bound_upper"]
    assert found[columns].to_numpy() == pytest.approx(truth[columns].to_numpy(), rel=1e-4)


def test_changes_far_below_the_rounding_of_a_single_precision_loss_keep_their_digits():
    model, examples = mlp(torch.float32), some_examples(30, (4,), dtype=torch.float32)
    row = loss_changes(
        model,
        "cross_entropy",
        examples,
        batch_size=30,
        learning_rate=1e-9,
        samples=2,
        seed=0,
        schemes=("fixed",),
        exact=exact_curvature(model, "cross_entropy", examples),
    ).iloc[0]
    assert row["mean"] == pytest.approx(row.predicted_first, rel=1e-5)
    assert abs(row["mean"]) < torch.finfo(torch.float32).eps / 10  # in float32 the loss would not have moved


@pytest.mark.parametrize("probability", [0.3, 0.05, 0.01])
def test_bounds_are_crossed_no_more_often_than_they_say(probability):
    for name, row in quadratic(60, batch_size=10, samples=4000, bound_probability=probability).iterrows():
        low, high = {0.3: ("q25", "q75"), 0.05: ("q05", "q95"), 0.01: ("q01", "q99")}[probability]
        assert row.bound_lower < row[low] < row[high] < row.bound_upper, name
        assert row.bound_probability == probability
        assert row.bound_upper - row.bound_lower < 10 * row.standard_deviation * math.sqrt(-math.log(probability))


def test_noise_grows_with_the_step_and_shrinks_with_the_batch():
    steps = [quadratic(learning_rate=eta).loc["fixed"] for eta in (0.1, 0.2, 0.4)]
    assert [s.predicted_noise / steps[0].predicted_noise for s in steps] == pytest.approx([1, 4, 16])
    assert [s.predicted_first / steps[0].predicted_first for s in steps] == pytest.approx([1, 2, 4])
    batches = [quadratic(batch_size=m).loc["fixed"] for m in (1, 2, 5, 10, 29, 30)]
    noise, width = [b.predicted_noise for b in batches], [b.bound_upper - b.bound_lower for b in batches]
    assert noise == sorted(noise, reverse=True) and width == sorted(width, reverse=True)
    expected = [(30 - m) / m for m in (1, 2, 5, 10, 29, 30)]
    assert [n / noise[0] * 29 for n in noise] == pytest.approx(expected)


@pytest.mark.parametrize("exactly", [True, False])
def test_a_full_batch_has_no_noise(case, exactly):
    model, examples, loss = case
    exact = exact_curvature(model, loss, examples) if exactly else None
    found = loss_changes(model, loss, examples, batch_size=30, learning_rate=1e-4, samples=50, seed=0, exact=exact)
    assert (found.standard_deviation == 0).all() and (found.predicted_standard_deviation == 0).all()
    assert (found.predicted_noise == 0).all() and (found.samples == 50).all()
    assert (found.bound_lower == found.predicted_mean).all() and (found.bound_upper == found.predicted_mean).all()
    assert found["mean"].to_numpy() == pytest.approx(found.predicted_mean.to_numpy(), rel=1e-3)
    assert (found.q01 == found.q99).all() and (found.share_decreasing == 1).all()
    assert (found.regime == "decreases").all()
    assert found.step_size.tolist() == pytest.approx([1e-4] * 3)  # all of the gradient is signal


def test_a_step_that_is_too_long_oscillates_and_a_noisy_one_decreases_on_average():
    assert quadratic(learning_rate=20.0).loc["fixed", "regime"] == "oscillates"
    assert quadratic(learning_rate=20.0, batch_size=30).loc["fixed", "regime"] == "oscillates"
    assert quadratic(learning_rate=0.1, batch_size=29).loc["fixed", "regime"] == "decreases"
    assert quadratic(learning_rate=0.2, batch_size=2).loc["fixed", "regime"] == "decreases on average"


def test_the_adaptive_step_lowers_a_quadratic_loss_on_average_wherever_a_fixed_one_may_not():
    """Near the minimum noise is all there is: a learning rate of 1.9 over the largest curvature."""
    model, examples, loss = linear_model(), some_examples(30, (4,)), "mean_squared_error"
    solver = torch.optim.LBFGS(model.parameters(), max_iter=4)
    labels = torch.nn.functional.one_hot(examples.targets, 3).double()

    def closure():
        solver.zero_grad()
        value = mse_loss(model(examples.inputs), labels)
        value.backward()
        return value

    solver.step(closure)
    exact = exact_curvature(model, loss, examples)
    rate = 1.9 / float(torch.linalg.eigvalsh(exact.hessian)[-1])
    table = loss_changes(model, loss, examples, batch_size=5, learning_rate=rate, seed=0, exact=exact)
    fixed, adaptive = (table.set_index("scheme").loc[name] for name in ("fixed", "adaptive"))
    assert fixed.predicted_mean > 0 > adaptive.predicted_mean
    assert 0 < adaptive.step_size < fixed.step_size


@pytest.mark.parametrize("batch_size", [1, 3])
def test_preconditioned_steps_have_the_same_mean_square_length(batch_size):
    model, examples, loss = linear_model(), some_examples(7, (4,)), "mean_squared_error"
    rows = exact_curvature(model, loss, examples).gradients
    gradients = torch.stack([rows[list(c)].mean(0) for c in combinations(range(7), batch_size)])
    scheme = scheme_at("preconditioned", model, loss, examples, 0.1, batch_size)
    lengths = scheme.steps(gradients).square().sum(1).mean().sqrt()
    assert float(lengths) == pytest.approx(0.1 * float(gradients.square().sum(1).mean().sqrt()), rel=1e-12)
    roots = rows.square().mean(0).sqrt()
    product = scheme.preconditioner * (roots + 1e-2 * roots.mean())
    assert float(product.max()) == pytest.approx(float(product.min()), rel=1e-10)


@pytest.mark.parametrize("name", SCHEMES)
def test_without_any_gradient_no_step_is_taken(name):
    scheme = make_scheme(name, 0.1, torch.zeros(4), torch.zeros(4), 0.5)
    assert scheme.step_size == 0.1 and not scheme.steps(torch.zeros(2, 4)).any()


def test_every_mini_batch_is_drawn_without_replacement_and_equally_often():
    batches = draw_mini_batches(20, 6, 3000, 1)
    assert batches.shape == (3000, 6) and all(len(set(b)) == 6 for b in batches.tolist())
    counts = torch.bincount(batches.reshape(-1), minlength=20).double()
    assert (counts - 900).abs().max() < 5 * math.sqrt(900 * 0.7)
    assert torch.equal(batches, draw_mini_batches(20, 6, 3000, 1))
    assert not torch.equal(batches, draw_mini_batches(20, 6, 3000, 2))


def test_all_schemes_take_the_same_mini_batches_and_a_seed_repeats_them():
    one, two = quadratic(schemes=("fixed",)), quadratic(schemes=("preconditioned", "fixed"))
    assert one.loc["fixed"].equals(two.loc["fixed"])
    assert quadratic(seed=1).loc["fixed", "mean"] != one.loc["fixed", "mean"]


def test_the_table_has_its_columns_and_types_and_the_model_stays_as_it_is(case):
    model, examples, loss = case
    before, told = {k: v.clone() for k, v in model.state_dict().items()}, []
    found = loss_changes(
        model,
        loss,
        examples,
        batch_size=4,
        learning_rate=0.1,
        samples=10,
        seed=0,
        chunk=4,
        probes=5,
        progress=lambda *numbers: told.append(numbers),
    )
    assert {name: str(kind) for name, kind in found.dtypes.items()} == LOSS_CHANGES
    assert found.scheme.tolist() == list(SCHEMES) and found.notna().all().all()
    assert told[:3] == [(4, 30), (8, 30), (10, 30)] and told[-1] == (30, 30)  # then 2 x 5 products for each of two A
    assert told == sorted(told) and len(told) > 20
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"batch_size": 31}, "batch_size is 31 and there are 30 examples; allowed: 1 to 30"),
        ({"batch_size": 0}, "batch_size is 0; allowed: integers from 1"),
        ({"samples": 1}, "samples is 1; allowed: integers from 2"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; allowed: numbers above 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"schemes": ("fixed", "adaptiv")}, "scheme 'adaptiv' is unknown; .* nearest valid name: adaptive"),
        ({"schemes": ()}, "no scheme given"),
        ({"schemes": "fixed"}, r"schemes is 'fixed'; give a list of names, such as \['fixed'\]"),
        ({"schemes": None}, "schemes is None"),
        ({"bound_probability": 1.0}, "bound_probability is 1.0; allowed: numbers between 0 and 1"),
        ({"chunk": 0}, "chunk is 0; allowed: integers from 1"),
        ({"probes": 1}, "probes is 1; allowed: integers from 2"),
    ],
)
def test_bad_arguments_are_refused(bad, message):
    with pytest.raises(InputError, match=message):
        quadratic(**bad)


def test_curvature_of_other_examples_a_wrong_loss_and_train_mode_are_refused():
    model, examples = linear_model(), some_examples(30, (4,))
    other = exact_curvature(model, "mean_squared_error", some_examples(9, (4,)))
    arguments = {"batch_size": 5, "learning_rate": 0.1, "seed": 0}
    with pytest.raises(InputError, match="exact holds 9 examples and 15 parameters; this point has 30 and 15"):
        loss_changes(model, "mean_squared_error", examples, exact=other, **arguments)
    with pytest.raises(InputError, match="loss 'mse' is unknown"):
        loss_changes(model, "mse", examples, **arguments)
    with pytest.raises(InputError, match="eval"):
        loss_changes(model.train(), "mean_squared_error", examples, **arguments)


def test_a_step_to_a_loss_that_is_not_finite_is_named():
    with pytest.raises(NotFiniteError, match=r"scheme fixed, mini-batches 1 to 200: .* smaller learning_rate"):
        quadratic(learning_rate=1e200)


@pytest.mark.parametrize("exactly", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_examples_of_another_precision_are_taken_in_that_of_the_weights(exactly, dtype):
    examples, model = some_examples(30, (4,), dtype=torch.float32), mlp(dtype)
    other = replace(examples, inputs=examples.inputs.double())
    found, expected = (
        loss_changes(model, "cross_entropy", e, batch_size=5, learning_rate=0.1, samples=20, seed=0,
                     exact=exact_curvature(model, "cross_entropy", e) if exactly else None)
        for e in (examples, other)
    )  # fmt: skip
    assert found.equals(expected)


@pytest.mark.parametrize("exactly", [True, False])
@pytest.mark.parametrize("function", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum"), cross_entropy])
def test_a_loss_may_be_a_function_of_any_reduction(exactly, function):
    model, examples = mlp(), some_examples(30, (4,))
    exact = exact_curvature(model, function, examples) if exactly else None
    arguments = {"batch_size": 5, "learning_rate": 0.1, "samples": 20, "seed": 0, "exact": exact}
    found = loss_changes(model, function, examples, **arguments)
    expected = loss_changes(model, "cross_entropy", examples, **arguments)
    numbers = expected.select_dtypes("float").columns
    torch.testing.assert_close(torch.tensor(found[numbers].values), torch.tensor(expected[numbers].values))


def test_a_mean_with_class_weights_and_a_pair_of_tensors_are_refused():
    model, examples = mlp(), some_examples(30, (4,))
    arguments = {"batch_size": 5, "learning_rate": 0.1, "seed": 0}
    with pytest.raises(InputError, match="mean with weights"):
        loss_changes(model, nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 0.2])), examples, **arguments)
    with pytest.raises(InputError, match=r"examples is tuple; give hessketch.data.examples.Examples\("):
        loss_changes(model, "cross_entropy", (examples.inputs, examples.targets), **arguments)
