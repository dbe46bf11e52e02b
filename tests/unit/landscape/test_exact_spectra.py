"""All eigenvalues of Hessian, GGN and output gradients: closed forms, ranks, sums, and what is refused before."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hessketch.curvature.dense import dense_hessian
from hessketch.curvature.losses import LOSSES
from hessketch.curvature.operators import ggn, residual
from hessketch.curvature.output_gradients import ggn_moment, output_gradient_moment
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.landscape import exact_spectra as module
from hessketch.landscape.exact_spectra import (
    OPERATORS,
    exact_memory,
    exact_spectra,
    require_exact,
    spectra_tables,
)
from hessketch.linalg.subspaces import overlap
from hessketch.networks.mlp import mlp
from hessketch.progress import Progress

CPU = torch.device("cpu")


def network(hidden: int = 6, outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return mlp(4, outputs, hidden=(hidden,), activation=nn.Tanh).double().eval()


def examples(n: int = 9, classes: int = 3) -> Examples:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return Examples(inputs, torch.arange(n) % classes, classes)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
def test_eigenvalues_and_vectors_are_those_of_the_dense_matrices(loss):
    model, data = network(), examples(30)
    found = exact_spectra(model, loss, data, top=5, batch_size=7)
    eye, p = torch.eye(parameters(model), dtype=torch.float64), parameters(model)
    batches = data.batches(30)
    matrices = {
        "hessian": dense_hessian(model, loss, batches),
        "ggn": ggn(model, LOSSES[loss], batches) @ eye,
        "output_gradients": ggn(model, lambda f, _: f.square().sum(1) / 2, batches) @ eye,
    }
    for name in OPERATORS:
        values, vectors = torch.linalg.eigh(matrices[name])
        torch.testing.assert_close(found[name].eigenvalues, values.flip(0), rtol=1e-9, atol=1e-12)
        assert overlap(found[name].vectors, vectors[:, p - 5 :]) == pytest.approx(1, abs=1e-9)
    trace = float((residual(model, LOSSES[loss], batches) @ eye).trace())
    sums = {name: float(spectrum.eigenvalues.sum()) for name, spectrum in found.items()}
    assert sums["hessian"] == pytest.approx(sums["ggn"] + trace, rel=1e-9)


def test_mse_with_a_linear_network_has_the_spectrum_of_its_inputs():
    """The Hessian is 2 / C times the second moment of (x, 1), once for each of C outputs."""
    torch.manual_seed(0)
    model, data = nn.Linear(4, 3).double().eval(), examples(20)
    ones = torch.ones(20, 1, dtype=torch.float64)
    inputs = torch.cat([data.inputs, ones], 1)
    values = torch.linalg.eigvalsh(inputs.T @ inputs / 20).flip(0).repeat_interleave(3)
    found = exact_spectra(model, "mean_squared_error", data)
    for name, scale in {"hessian": 2 / 3, "ggn": 2 / 3, "output_gradients": 1.0}.items():
        torch.testing.assert_close(found[name].eigenvalues, scale * values, rtol=1e-10, atol=1e-12)


def test_a_softmax_at_zero_weights_has_the_spectrum_of_a_product():
    """(I - 1 1^T / C) / C times the second moment of (x, 1): its eigenvalues over C, C - 1 times, and p / C zeros."""
    model, data = nn.Linear(4, 3).double().eval(), examples(20)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    inputs = torch.cat([data.inputs, torch.ones(20, 1, dtype=torch.float64)], 1)
    values = torch.linalg.eigvalsh(inputs.T @ inputs / 20).flip(0).repeat_interleave(2) / 3
    found = exact_spectra(model, "cross_entropy", data)
    expected = torch.cat([values, torch.zeros(5, dtype=torch.float64)])
    torch.testing.assert_close(found["hessian"].eigenvalues, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found["ggn"].eigenvalues, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("hidden", [6, 12, 20])
def test_wider_networks_have_more_zeros_and_as_many_others(hidden):
    model, data = network(hidden), examples(5)
    p = parameters(model)
    softmax = exact_spectra(model, "cross_entropy", data)
    squares = exact_spectra(model, "mean_squared_error", data)
    ranks = {
        "softmax": int((softmax["ggn"].eigenvalues > 0).sum()),
        "squares": int((squares["ggn"].eigenvalues > 0).sum()),
        "gradients": int((softmax["output_gradients"].eigenvalues > 0).sum()),
    }
    assert ranks == {"softmax": 5 * 2, "squares": 5 * 3, "gradients": 5 * 3} and p > 15
    assert int((squares["ggn"].eigenvalues == 0).sum()) == p - 15


def test_a_fitted_network_has_as_many_zeros_as_parameters_beyond_the_outputs():
    """With targets that the network gives itself the residual is 0: the Hessian of MSE has rank n C."""
    model, data = network(12), examples(5)
    fitted = model(data.inputs).detach()
    loss = lambda outputs, _: (outputs - fitted).square().mean(1)  # noqa: E731
    found = exact_spectra(model, loss, data, batch_size=5)
    values, p = found["hessian"].eigenvalues, parameters(model)
    assert int((values.abs() < 1e-12 * values[0]).sum()) == p - 15
    torch.testing.assert_close(values, found["ggn"].eigenvalues, rtol=1e-9, atol=1e-13)


def test_tables_hold_every_eigenvalue_and_overlaps_with_the_hessians_space():
    model, data = network(), examples(30)
    p, spectra = parameters(model), exact_spectra(model, "cross_entropy", data)
    tables = spectra_tables(spectra, 4)
    assert list(tables["spectra"]) == ["operator", "rank", "eigenvalue"]
    assert list(tables["alignments"]) == ["operator", "k", "overlap", "chance"]
    for name, rows in tables["spectra"].groupby("operator"):
        assert rows["rank"].tolist() == list(range(1, p + 1))
        np.testing.assert_array_equal(rows["eigenvalue"], spectra[name].eigenvalues)
        assert (np.diff(rows["eigenvalue"]) <= 0).all()
    for name, rows in tables["alignments"].groupby("operator"):
        assert rows["k"].tolist() == [1, 2, 3, 4]
        np.testing.assert_allclose(rows["chance"], rows["k"] / p)
        for k, value in zip(rows["k"], rows["overlap"], strict=True):
            bases = (spectra[key].vectors[:, :k] for key in ("hessian", name))
            assert value == pytest.approx(overlap(*bases), abs=1e-12) and 0 <= value <= 1
    assert set(tables["alignments"]["operator"]) == {"ggn", "output_gradients"}


@pytest.mark.parametrize("copies", [1, 2])
def test_a_space_that_reaches_into_the_null_space_has_no_overlap(copies):
    one = examples(1)
    data = Examples(one.inputs.repeat(copies, 1), one.targets.repeat(copies), 3)  # copies add rows, but no rank
    found = spectra_tables(exact_spectra(network(), "cross_entropy", data, top=5), 5)["alignments"]
    defined = found.groupby("operator")["overlap"].count().to_dict()
    assert defined == {"ggn": 2, "output_gradients": 3}


def test_what_cannot_be_measured_is_refused_before():
    model, data = network(), examples()
    p = parameters(model)
    with pytest.raises(InputError, match=f"{p + 1} leading eigenvectors asked of {p} parameters"):
        exact_spectra(model, "cross_entropy", data, top=p + 1)
    with pytest.raises(InputError, match="top is 0"):
        exact_spectra(model, "cross_entropy", data, top=0)
    with pytest.raises(InputError, match=r"20001 parameters asked, allowed are 20000.*take a narrower network"):
        require_exact(20_001, 100, 10, CPU, 2**50, 20_000)
    require_exact(20_000, 100, 10, CPU, 2**50, 20_000)


@pytest.mark.parametrize("n, outputs", [(1000, 10), (100, 10), (10, 1)])
def test_the_size_that_is_said_to_fit_does_and_one_more_does_not(n, outputs):
    with pytest.raises(InputError, match="parameters would fit") as error:
        require_exact(20_000, n, outputs, CPU, 2**31, 20_000)
    fitting = int(str(error.value).split("at most ")[1].split()[0])
    assert exact_memory(fitting, n, outputs, CPU) <= 2**31 < exact_memory(fitting + 1, n, outputs, CPU)
    assert 10_000 < fitting < 15_000


@pytest.mark.parametrize(("n", "hidden"), [(30, 6), (26, 6), (20, 6), (9, 6), (9, 12)])
@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
def test_what_is_declared_holds_either_matrix_and_the_gradients_beside_it(n, hidden, loss):
    """30: all rows and those of a softmax are more than p = 51; 20: neither; 26: 52 rows of a softmax, 78 of all."""
    model, data = network(hidden), examples(n)
    p, declared = parameters(model), exact_memory(parameters(model), n, 3, CPU) - 2**29
    moments = [ggn_moment(model, loss, data.inputs, data.targets), output_gradient_moment(model, data.inputs)]
    held = [moment.matrix.nbytes + (0 if moment.rows is None else moment.rows.nbytes) for moment in moments]
    assert max(*held, 8 * p * p) <= declared <= 2 * 8 * p * p


def test_a_network_that_is_sure_of_every_example_has_a_ggn_of_zeros():
    model, data = network(), examples()
    with torch.no_grad():
        model[-1].weight.zero_()
        model[-1].bias.copy_(torch.tensor([0.0, 2000.0, -2000.0]))
    found = exact_spectra(model, "cross_entropy", data)
    assert not found["ggn"].eigenvalues.any() and found["ggn"].vectors.shape == (parameters(model), 0)
    assert found["output_gradients"].eigenvalues[0] > 0


def test_weights_that_are_not_finite_are_named_so():
    model = network()
    with torch.no_grad():
        model[1].weight[0, 0] = math.nan
    with pytest.raises(NotFiniteError):
        exact_spectra(model, "cross_entropy", examples())


def test_a_long_decomposition_is_announced_with_the_time_it_takes(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_SECONDS_PER_CUBE", 0.01)
    exact_spectra(network(), "cross_entropy", examples(), progress=Progress("test", tmp_path / "log"))
    log = (tmp_path / "log").read_text()
    p, rows = parameters(network()), 9 * 2
    assert f"hessian: decomposition of {p} x {p}, some 22 min" in log and "hessian: row" in log
    assert f"ggn: decomposition of {rows} x {rows}, some 58 s" in log
