"""Spectra of kept weights: exact on a small network, resuming by checkpoint, empty where nothing was kept."""

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.func import hessian as dense_hessian

from hessketch.checkpoints import Architecture
from hessketch.curvature import checkpoint_spectra
from hessketch.curvature.checkpoint_spectra import CURVATURE, SPECTRUM, empty_tables, spectra_of_checkpoints
from hessketch.curvature.losses import cross_entropy
from hessketch.data.examples import Examples
from hessketch.errors import NotFiniteError
from hessketch.linalg.fast_spectrum import FastSettings
from hessketch.networks.registry import build_network
from hessketch.records import read_record, read_table

ARCHITECTURE = Architecture("mlp", (4,), 3, 1 / 64, "none")  # two hidden layers of 4 units: p = 55
COLUMNS = {"dataset": "clusters", "seed": 0, "error_feedback": False, "reduction": float("nan")}
SETTINGS = FastSettings(top=3, lanczos_steps=55, grid_points=64, start_vectors=1)


def network(seed):
    return build_network("mlp", input_shape=(4,), classes=3, width=1 / 64, norm="none", seed=seed).eval()


CHECKPOINTS = [
    ({"kind": "round", "round": 0, "train_loss": 1.2, "target_loss": None}, network(0).state_dict()),
    ({"kind": "loss", "round": 3, "train_loss": 0.9, "target_loss": 1.0}, network(1).state_dict()),
]


def examples(n, seed):
    inputs = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return Examples(inputs, torch.arange(n) % 3, 3)


SPLITS = {"train": examples(30, 1), "test": examples(12, 2)}


def run(output, checkpoints=CHECKPOINTS, **options):
    architecture = ARCHITECTURE if checkpoints else None
    return spectra_of_checkpoints(
        architecture, checkpoints, "cross_entropy", SPLITS, SETTINGS, output, columns=COLUMNS, seed=3,
        device=torch.device("cpu"), **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    run(folder)
    return folder


@pytest.mark.parametrize("of", ["weights", "examples"])
def test_nan_is_an_error_that_names_checkpoint_split_and_operator(of, tmp_path, monkeypatch):
    if of == "weights":
        facts, state = CHECKPOINTS[1]
        broken = {name: tensor.clone() for name, tensor in state.items()}
        next(iter(broken.values()))[0, 0] = torch.nan
        checkpoints, where = [CHECKPOINTS[0], (facts, broken)], r"checkpoint 2 of 2 \(round 3\), train"
    else:
        data = examples(12, 2)
        data.inputs[5, 1] = torch.nan
        monkeypatch.setitem(SPLITS, "test", data)
        checkpoints, where = CHECKPOINTS, r"checkpoint 1 of 2 \(round 0\), test"
    with pytest.raises(NotFiniteError, match=f"^{where} examples: hessian: .* weights have diverged, or its inputs do"):
        run(tmp_path, checkpoints)
    assert not (tmp_path / "record.json").exists()


def dense(seed, data):
    """Eigenvalues of the Hessian and its gradient's squared norm, in float64."""
    model = network(seed).double()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    sizes = [value.numel() for value in parameters.values()]

    def loss(flat):
        pieces = zip(parameters, flat.split(sizes), strict=True)
        full = {name: piece.view_as(parameters[name]) for name, piece in pieces}
        return cross_entropy(functional_call(model, full, data.inputs.double()), data.targets).mean()

    at = torch.cat([value.flatten() for value in parameters.values()])
    gradient = torch.func.grad(loss)(at)
    return np.linalg.eigvalsh(dense_hessian(loss)(at).numpy()), float(gradient @ gradient)


@pytest.mark.parametrize(("row", "seed"), [(0, 0), (1, 1)])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_number_is_that_of_the_dense_hessian(done, row, seed, split):
    curvature = read_table(done / "curvature.parquet")
    found = curvature[curvature["split"] == split].iloc[row]
    eigenvalues, gradient = dense(seed, SPLITS[split])
    magnitudes = np.abs(eigenvalues)
    expected = {
        "largest_eigenvalue": eigenvalues.max(),
        "largest_magnitude": magnitudes.max(),
        "trace": eigenvalues.sum(),
        "frobenius_squared": (magnitudes**2).sum(),
        "absolute_sum": magnitudes.sum(),
        "kappa": magnitudes.sum() / magnitudes.max(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-3), name
    assert found["p"] == 55 and found["n"] == len(SPLITS[split])
    if split == "train":
        assert found["gradient_norm_squared"] == pytest.approx(gradient, rel=1e-4)
    else:
        assert np.isnan(found["gradient_norm_squared"])


def test_a_row_says_which_weights_it_belongs_to(done):
    curvature = read_table(done / "curvature.parquet")
    assert list(curvature) == [*COLUMNS, *SPECTRUM, *CURVATURE]
    assert curvature["kind"].tolist() == ["round", "round", "loss", "loss"]
    assert curvature["round"].tolist() == [0, 0, 3, 3]
    assert curvature["target_loss"].isna().tolist() == [True, True, False, False]
    assert set(curvature["dataset"]) == {"clusters"} and set(curvature["operator"]) == {"hessian"}


def test_densities_and_eigenvalues_are_kept_of_the_checkpoints_by_loss(done):
    density, eigenvalues = (read_table(done / f"{name}.parquet") for name in ("density", "eigenvalues"))
    for table in (density, eigenvalues):
        assert set(table["kind"]) == {"loss"} and set(table["split"]) == {"train", "test"}
        assert set(table["round"]) == {3} and set(table["target_loss"]) == {1.0}
    top = eigenvalues[eigenvalues["split"] == "train"].sort_values("rank")["eigenvalue"].to_numpy()
    exact, _ = dense(1, SPLITS["train"])
    assert top == pytest.approx(sorted(exact, key=abs, reverse=True)[: len(top)], rel=2e-3)


def test_a_killed_job_takes_up_what_was_finished(done, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    real, calls = checkpoint_spectra.spectra_of_network, []

    def counted(*arguments, **options):
        if len(calls) == 2:
            raise Killed
        calls.append(options["columns"]["split"])
        return real(*arguments, **options)

    monkeypatch.setattr(checkpoint_spectra, "spectra_of_network", counted)
    with pytest.raises(Killed):
        run(tmp_path)
    assert calls == ["train", "test"] and not (tmp_path / "curvature.parquet").exists()
    calls.clear()
    calls.append("one that came before")  # so that a third spectrum computed anew would raise
    monkeypatch.setattr(checkpoint_spectra, "spectra_of_network", lambda *a, **o: (calls.append(o), real(*a, **o))[1])
    run(tmp_path)
    assert len(calls) == 3
    for name in ("curvature", "density", "eigenvalues"):
        assert read_table(tmp_path / f"{name}.parquet").equals(read_table(done / f"{name}.parquet"))
    assert not (tmp_path / "partial").exists()


def test_what_other_settings_left_is_not_taken(tmp_path, monkeypatch):
    stale = tmp_path / "partial" / ("0" * 32)
    stale.mkdir(parents=True)
    (stale / "record.json").write_text("{}")
    run(tmp_path, CHECKPOINTS[:1])
    assert len(read_table(tmp_path / "curvature.parquet")) == 2
    assert not stale.exists()


def test_without_checkpoints_the_tables_are_empty_and_have_their_columns(done, tmp_path):
    run(tmp_path, [])
    for name, table in empty_tables(COLUMNS).items():
        written, full = (read_table(folder / f"{name}.parquet") for folder in (tmp_path, done))
        assert len(written) == 0 and list(written) == list(table) and set(written) == set(full)
        assert written.dtypes.to_dict() == full[list(written)].dtypes.to_dict()
    assert read_record(tmp_path / "record.json")["spectra"] == []
