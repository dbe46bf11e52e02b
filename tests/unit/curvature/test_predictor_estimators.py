"""Predictor Hessians of small networks by both estimators against dense float64 ones."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.func import hessian as dense_hessian

from hessketch.curvature.losses import loss_function
from hessketch.curvature.predictor_estimators import spectra_of_example
from hessketch.curvature.predictor_settings import PredictorSettings
from hessketch.errors import InputError

EXACT = PredictorSettings(
    lanczos_steps=400, start_vectors=20, fast_steps=400, fast_start_vectors=1, grid_points=400, top=3
)
SHORT = PredictorSettings(lanczos_steps=30, start_vectors=3, fast_steps=30)
QUICK = PredictorSettings(lanczos_steps=12, start_vectors=2, fast_steps=12, grid_points=64, top=2)
CASES = [(1, "binary_cross_entropy"), (1, "mean_squared_error"), (1, "sigmoid_squared_error"), (10, "cross_entropy")]


def network(outputs, seed=0):
    """One hidden layer of smooth units: p is 113 with one output, 194 with ten."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.Linear(8, outputs))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 2
    return model.eval()


def example(outputs, seed=1):
    inputs = torch.randn(1, 12, generator=torch.Generator().manual_seed(seed))
    return inputs, torch.tensor([1 if outputs == 1 else 7])


def dense(model, loss, inputs, targets):
    """Eigenvalues of sum_k (dl/df_k) d2 f_k in float64, and the slope (outputs,)."""
    double = nn.Sequential(*model).double()
    parameters = {name: value.detach() for name, value in double.named_parameters()}
    sizes = [value.numel() for value in parameters.values()]

    def outputs(flat):
        pieces = zip(parameters, flat.split(sizes), strict=True)
        full = {name: piece.view_as(parameters[name]) for name, piece in pieces}
        return functional_call(double, full, inputs.double())

    at = torch.cat([value.flatten() for value in parameters.values()])
    slope = torch.func.grad(lambda f: loss_function(loss)(f, targets).sum())(outputs(at))
    found = dense_hessian(lambda flat: (outputs(flat) * slope).sum())(at)
    return np.linalg.eigvalsh(found.numpy()), slope[0].numpy()


def kappa_of(eigenvalues):
    return np.abs(eigenvalues).sum() / np.abs(eigenvalues).max()


def found_of(model, loss, inputs, targets, settings=EXACT, seed=3):
    return spectra_of_example(model, loss, inputs, targets, settings, seed)


@pytest.mark.parametrize(
    ("outputs", "loss", "dtype"),
    [*[(*case, torch.float32) for case in CASES], *[(*case, torch.float64) for case in (CASES[0], CASES[-1])]],
)
def test_both_estimators_find_the_kappa_of_the_dense_predictor_hessian(outputs, loss, dtype):
    model, (inputs, targets) = network(outputs), example(outputs)
    eigenvalues, slope = dense(network(outputs), loss, inputs, targets)
    found = found_of(model.to(dtype), loss, inputs.to(dtype), targets)
    paper, fast = found.rows["paper"], found.rows["fast"]
    accuracy = 1e-4 if dtype is torch.float32 else 1e-9
    expected = {
        "largest_eigenvalue": eigenvalues.max(),
        "smallest_eigenvalue": eigenvalues.min(),
        "largest_magnitude": np.abs(eigenvalues).max(),
    }
    for row in (paper, fast):
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=accuracy), name
    assert fast["kappa"] == pytest.approx(kappa_of(eigenvalues), rel=accuracy)
    assert fast["absolute_sum"] == pytest.approx(np.abs(eigenvalues).sum(), rel=accuracy)
    assert 0 < paper["kappa_standard_error"] < 0.15 * paper["kappa"]
    assert abs(paper["kappa"] - kappa_of(eigenvalues)) < 4 * paper["kappa_standard_error"]
    assert paper["kappa_lower"] == pytest.approx(paper["kappa"], rel=1e-3)  # as many steps as there are eigenvalues
    assert paper["slope"] == pytest.approx(slope[0] if outputs == 1 else np.nan, rel=1e-4, nan_ok=True)
    assert found.record["outputs"] == outputs and found.record["p"] == len(eigenvalues)


def test_kappa_does_not_depend_on_the_scale_or_the_sign_of_the_slope():
    model, (inputs, _) = network(1), example(1)
    rows = [
        found_of(model, loss, inputs, torch.tensor([target]), SHORT).rows
        for loss in ("binary_cross_entropy", "mean_squared_error", "sigmoid_squared_error")
        for target in (0, 1)
    ]
    slopes = [row["paper"]["slope"] for row in rows]
    assert min(slopes) < 0 < max(slopes) and max(map(abs, slopes)) > 3 * min(map(abs, slopes))
    for estimator, name in [
        ("paper", "kappa"),
        ("fast", "kappa"),
        ("paper", "kappa_smoothed"),
        ("paper", "kappa_floor"),
    ]:
        values = [row[estimator][name] for row in rows]
        assert values == pytest.approx([values[0]] * len(rows), rel=1e-3), name


def test_the_bound_from_below_of_fast_is_kappa_once_its_steps_resolve_the_spectrum_and_less_before():
    model, (inputs, targets) = network(1).double(), example(1)
    few = PredictorSettings(estimators=("fast",), fast_steps=6, fast_start_vectors=2, top=1)
    early, late = (
        found_of(model, "binary_cross_entropy", inputs.double(), targets, s).rows["fast"] for s in (few, EXACT)
    )
    assert late["kappa_lower"] == pytest.approx(late["kappa"], rel=1e-6)
    assert 0 < early["kappa_lower"] < early["kappa"]


def test_the_smoothed_sum_is_that_of_the_hessian_without_its_slope():
    """The authors' kernel on the exact eigenvalues of d2 f, of which each start vector sees its own weights."""
    model, (inputs, targets) = network(1), example(1)
    eigenvalues, slope = dense(network(1), "binary_cross_entropy", inputs, targets)
    row = found_of(model, "binary_cross_entropy", inputs, targets).rows["paper"]
    theirs = eigenvalues / abs(slope[0])
    sigma = np.sqrt(1e-5 * max(1, np.ptp(theirs) + 0.02))
    assert row["kappa_floor"] == pytest.approx(
        len(theirs) * sigma * np.sqrt(2 / np.pi) / np.abs(theirs).max(), rel=1e-3
    )
    # |x| smoothed by the kernel, summed: what the quadrature estimates but for the grid's ends.
    folded = [np.abs(x + sigma * np.linspace(-8, 8, 4001)) for x in theirs]
    weights = np.exp(-(np.linspace(-8, 8, 4001) ** 2) / 2)
    expected = sum(f @ weights for f in folded) / weights.sum() / np.abs(theirs).max()
    assert abs(row["kappa_smoothed"] - expected) < 4 * row["kappa_standard_error"] + 0.01 * expected
    assert expected > kappa_of(eigenvalues) + 0.3 * row["kappa_floor"]


@pytest.mark.parametrize(("outputs", "loss"), [CASES[0], CASES[-1]])
def test_densities_are_in_units_of_the_predictor_hessian_and_hold_all_mass(outputs, loss):
    model, (inputs, targets) = network(outputs), example(outputs)
    eigenvalues, slope = dense(network(outputs), loss, inputs, targets)
    unit = abs(slope[0]) if outputs == 1 else 1.0
    found = found_of(model, loss, inputs, targets, PredictorSettings(lanczos_steps=60, grid_points=4096))
    for name, density in found.densities.items():
        spacing = density.eigenvalues[1] - density.eigenvalues[0]
        assert density.density.sum() * spacing == pytest.approx(1, rel=1e-4), name
        assert density.eigenvalues[0] < eigenvalues.min() and density.eigenvalues[-1] > eigenvalues.max()
    sigma = np.sqrt(1e-5 * max(1, np.ptp(eigenvalues / unit) + 0.02)) * unit
    assert found.densities["paper"].broadening == pytest.approx(sigma, rel=1e-3)
    near_zero = np.abs(found.densities["paper"].eigenvalues) < 3 * sigma
    share = found.densities["paper"].density[near_zero].sum() * np.diff(found.densities["paper"].eigenvalues)[0]
    assert share == pytest.approx(np.mean(np.abs(eigenvalues) < 2 * sigma), abs=0.15)


@pytest.mark.parametrize("cause", ["dead units", "slope of zero"])
def test_a_predictor_hessian_of_zero_has_no_kappa_and_finite_numbers_otherwise(cause):
    model, (inputs, targets) = network(1), example(1)
    if cause == "dead units":
        model = nn.Sequential(model[0], nn.ReLU(), model[2]).eval()
        model[0].bias.data.fill_(-1000.0)
        loss = "binary_cross_entropy"
    else:
        model[2].bias.data.fill_(1e4)  # sigmoid(f) is 1 in float32, and so is the label
        loss = "sigmoid_squared_error"
    found = found_of(model, loss, inputs, targets, QUICK)
    for name, row in found.rows.items():
        of_kappa = {key: value for key, value in row.items() if key.startswith("kappa")}
        assert all(np.isnan(value) for value in of_kappa.values()), name
        assert all(np.isfinite(value) for key, value in row.items() if key not in of_kappa), name
        assert row["absolute_sum"] == row["largest_magnitude"] == 0
        assert np.isfinite(found.densities[name].density).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_are_taken_in_the_precision_of_the_weights(dtype):
    model, (inputs, targets) = network(1).to(dtype), example(1)
    other = torch.float64 if dtype == torch.float32 else torch.float32
    found = found_of(model, "binary_cross_entropy", inputs.to(other), targets, QUICK)
    expected = found_of(model, "binary_cross_entropy", inputs.to(dtype), targets, QUICK)
    for name in ("paper", "fast"):
        assert found.rows[name]["kappa"] == expected.rows[name]["kappa"]


def test_a_loss_may_be_a_function():
    model, (inputs, targets) = network(10), example(10)
    by_name = found_of(model, "cross_entropy", inputs, targets, QUICK)
    for function in (loss_function("cross_entropy"), nn.CrossEntropyLoss()):
        found = found_of(model, function, inputs, targets, QUICK)
        for name in ("paper", "fast"):
            assert found.rows[name]["kappa"] == pytest.approx(by_name.rows[name]["kappa"], rel=1e-5)


def test_nothing_is_shown_unasked(capfd):
    found_of(network(1), "binary_cross_entropy", *example(1), QUICK)
    assert capfd.readouterr() == ("", "")


def test_an_example_without_batch_axis_and_several_examples_are_refused():
    model, (inputs, targets) = network(10), example(10)
    for x, y in ((inputs[0], targets), (inputs, targets[0]), (inputs.expand(2, 12), targets.expand(2))):
        with pytest.raises(InputError, match="one example with its batch axis"):
            found_of(model, "cross_entropy", x, y, QUICK)
    with pytest.raises(InputError, match=r"outputs of shape \(1, 1, 10\)"):
        found_of(model, "cross_entropy", inputs[None], targets, QUICK)


@pytest.mark.parametrize("mode", ["train", "no statistics"])
def test_a_network_that_is_not_frozen_is_refused_before_it_is_run(mode):
    layers = [nn.Linear(12, 8), nn.BatchNorm1d(8, track_running_stats=mode == "train"), nn.Linear(8, 1)]
    model = nn.Sequential(*layers).train(mode == "train")
    with pytest.raises(InputError, match="eval" if mode == "train" else "without running statistics"):
        found_of(model, "binary_cross_entropy", *example(1), QUICK)


@pytest.mark.parametrize(("outputs", "loss"), CASES)
def test_a_label_that_the_outputs_do_not_know_is_refused(outputs, loss):
    model, (inputs, _) = network(outputs), example(outputs)
    for label in (-1, max(outputs, 2)):
        with pytest.raises(InputError, match=f"the label is {label} .* allowed: 0 to {max(outputs, 2) - 1}"):
            found_of(model, loss, inputs, torch.tensor([label]), QUICK)


def test_cross_entropy_of_a_single_output_is_refused():
    with pytest.raises(InputError, match="cross_entropy of a single output"):
        found_of(network(1), "cross_entropy", example(1)[0], torch.tensor([0]), QUICK)
