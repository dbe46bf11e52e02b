"""Spectra of one network, from a checkpoint to tables: exact on a small one, resuming, refusing what does not fit."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.func import hessian as dense_hessian

from hessketch.checkpoints import Architecture, save_model
from hessketch.curvature.job import load_network, spectra_of_network
from hessketch.curvature.losses import cross_entropy
from hessketch.curvature.resume import LanczosStore
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.linalg.fast_spectrum import FastSettings
from hessketch.linalg.paper_spectrum import PaperSettings
from hessketch.networks.registry import build_network
from hessketch.progress import Progress
from hessketch.records import read_record, read_table

SETTINGS = PaperSettings(
    normalization_steps=8, lanczos_steps=40, grid_points=64, deflation_rank=3, deflation_iterations=60,
    kpm_moments=6, reorthogonalize=True, start_vectors=2,
)  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double().eval()


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    return Examples(inputs, torch.randint(0, 3, (30,), generator=generator), 3)


def spectra(model, examples, output, **options):
    return spectra_of_network(model, "cross_entropy", examples, SETTINGS, output, seed=5, **options)


def dense(model, examples):
    """The Hessian (p, p) by torch.func, in the order of the flat vectors."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    sizes = [value.numel() for value in parameters.values()]

    def loss(flat):
        pieces = zip(parameters, flat.split(sizes), strict=True)
        full = {name: piece.view_as(parameters[name]) for name, piece in pieces}
        return cross_entropy(functional_call(model, full, examples.inputs), examples.targets).mean()

    return dense_hessian(loss)(torch.cat([value.flatten() for value in parameters.values()])).numpy()


def test_stored_eigenvalues_and_ritz_values_are_those_of_the_dense_hessian(model, examples, tmp_path):
    spectra(model, examples, tmp_path)
    exact = np.linalg.eigvalsh(dense(model, examples))
    eigenvalues = read_table(tmp_path / "eigenvalues.parquet").query("operator == 'hessian'")
    nearest = np.abs(eigenvalues["eigenvalue"].to_numpy()[:, None] - exact).min(axis=1)
    assert (nearest <= eigenvalues["residual_norm"] + 1e-12).all()
    assert eigenvalues["eigenvalue"].iloc[0] == pytest.approx(exact[np.abs(exact).argmax()], rel=1e-8)
    ritz = read_table(tmp_path / "ritz.parquet").query("operator == 'hessian' and not deflated and start_vector == 0")
    assert ritz["ritz_value"].max() == pytest.approx(exact.max(), rel=1e-8)
    assert ritz["ritz_value"].min() == pytest.approx(exact.min(), rel=1e-6)


def test_tables_name_operator_n_p_and_classes_and_the_residual_is_not_deflated(model, examples, tmp_path):
    record = spectra(model, examples, tmp_path, columns={"split": "train"})
    for name in ("density", "ritz", "eigenvalues", "bounds"):
        table = read_table(tmp_path / f"{name}.parquet")
        assert set(table["n"]) == {30} and set(table["p"]) == {43} and set(table["classes"]) == {3}
        assert set(table["split"]) == {"train"}
    ritz = read_table(tmp_path / "ritz.parquet")
    assert set(ritz.groupby("operator")["deflated"].any().items()) == {
        ("hessian", True), ("ggn", True), ("residual", False)
    }  # fmt: skip
    assert set(read_table(tmp_path / "density.parquet")["estimator"]) == {"lanczos", "kpm"}
    assert read_record(tmp_path / "record.json")["weights"] == record["weights"]


FAST = FastSettings(top=3, lanczos_steps=20, grid_points=64, kpm_moments=6, start_vectors=2)


def test_method_fast_writes_the_same_tables_with_the_exact_eigenvalues(model, examples, tmp_path):
    record = spectra_of_network(model, "cross_entropy", examples, FAST, tmp_path, seed=5)
    exact = np.linalg.eigvalsh(dense(model, examples))
    eigenvalues = read_table(tmp_path / "eigenvalues.parquet").query("operator == 'hessian'")
    top = exact[np.argsort(-np.abs(exact))][:3]
    assert (np.abs(eigenvalues["eigenvalue"].to_numpy() - top) <= eigenvalues["residual_norm"] + 1e-12).all()
    assert set(read_table(tmp_path / "eigenvalues.parquet")["operator"]) == {"hessian", "ggn"}
    sums = read_table(tmp_path / "sums.parquet").query("operator == 'hessian'").set_index("quantity")
    for quantity, value in (("trace", exact.sum()), ("frobenius_squared", (exact**2).sum())):
        assert abs(sums.loc[quantity, "value"] - value) <= 4 * sums.loc[quantity, "standard_error"] + 1e-9
    assert record["method"] == "fast" and record["runs"]["hessian"]["products"] < 2 * 43
    assert set(read_table(tmp_path / "density.parquet")["estimator"]) == {"lanczos", "kpm"}


def _distribution(density, at):
    x, phi = density["eigenvalue"].to_numpy(), density["density"].to_numpy()
    return np.interp(at, x, np.concatenate([[0.0], np.cumsum(np.diff(x) * (phi[1:] + phi[:-1]) / 2)]))


def test_both_methods_draw_the_same_spectrum_within_their_errors(model, examples, tmp_path):
    """Distribution functions of the density, raw and deflated, and the eigenvalues taken out."""
    kinds = {
        "paper": PaperSettings(
            normalization_steps=30, lanczos_steps=30, deflation_rank=3, deflation_iterations=60, rayleigh_ritz=True,
            reorthogonalize=True, start_vectors=20,
        ),
        "fast": FastSettings(top=3, lanczos_steps=30, start_vectors=20),
    }  # fmt: skip
    exact = np.linalg.eigvalsh(dense(model, examples))
    tables = {}
    for name, settings in kinds.items():
        spectra_of_network(model, "cross_entropy", examples, settings, tmp_path / name, seed=5, operators=["hessian"])
        tables[name] = {t: read_table(tmp_path / f"{name}/{t}.parquet") for t in ("density", "eigenvalues")}
    found = [tables[name]["eigenvalues"] for name in kinds]
    apart = np.abs(found[0]["eigenvalue"] - found[1]["eigenvalue"])
    assert (apart <= found[0]["residual_norm"] + found[1]["residual_norm"]).all()
    for deflated in (False, True):
        curves = [tables[name]["density"].query(f"deflated == {deflated}") for name in kinds]
        steps = np.sort(np.append(exact if not deflated else exact[np.argsort(-np.abs(exact))][3:], 0.0))
        widest = np.argsort(np.diff(steps))[-4:]  # where the exact distribution is flat, kernels blur the least
        at = (steps[widest] + steps[widest + 1]) / 2
        one, two = (_distribution(curve, at) for curve in curves)
        share = two * (1 - two)
        error = np.sqrt(2 / (len(exact) + 2) * share / 20) * np.sqrt(2)  # of a share, 20 vectors in each method
        assert (np.abs(one - two) <= 4 * error + 0.01).all(), (deflated, one, two, error)


class Killed(Exception):
    pass


class KilledIn(Progress):
    """Progress of a job that is killed in the middle of one operator."""

    def __init__(self, operator):
        super().__init__("test")
        self.operator = operator
        self.said = []

    def say(self, text):
        self.said.append(text)

    def stage(self, name):
        def report(done, total):
            if name.startswith(self.operator) and done > total // 2:
                raise Killed

        return report


def test_a_killed_job_resumes_at_the_operator_it_was_in_and_gives_the_same_tables(model, examples, tmp_path):
    spectra(model, examples, tmp_path / "undisturbed")
    with pytest.raises(Killed):
        spectra(model, examples, tmp_path / "killed", progress=KilledIn("ggn"))
    assert not (tmp_path / "killed/record.json").exists()
    resumed = KilledIn("nothing")
    spectra(model, examples, tmp_path / "killed", progress=resumed)
    assert resumed.said == ["hessian: already done, resumed"]
    for name in ("density", "ritz", "eigenvalues"):
        tables = [read_table(tmp_path / f"{folder}/{name}.parquet") for folder in ("undisturbed", "killed")]
        assert tables[0].equals(tables[1])
    assert not (tmp_path / "killed/partial").exists()


class KilledAfter(KilledIn):
    """Killed after so many products of the GGN."""

    def __init__(self, products):
        super().__init__("ggn")
        self.products = products

    def stage(self, name):
        def report(done, total):
            if name.startswith("ggn") and done == self.products:
                raise Killed

        return report


@pytest.mark.parametrize("products", [5, 17, 33])
def test_a_killed_lanczos_run_goes_on_where_it_was_bit_for_bit(model, examples, tmp_path, products):
    options = {"seed": 5, "save_every": 0.0}
    spectra_of_network(model, "cross_entropy", examples, FAST, tmp_path / "undisturbed", **options)
    with pytest.raises(Killed):
        spectra_of_network(
            model, "cross_entropy", examples, FAST, tmp_path / "killed", progress=KilledAfter(products), **options
        )
    assert list((tmp_path / "killed/partial/ggn").glob("start*/state.safetensors"))
    counted = KilledIn("nothing")
    seen = []
    counted.stage = lambda name: lambda done, total: seen.append((name, done))
    spectra_of_network(model, "cross_entropy", examples, FAST, tmp_path / "killed", progress=counted, **options)
    first = next(done for name, done in seen if name.startswith("ggn"))
    assert first >= min(products, 20)
    for name in ("density", "ritz", "eigenvalues", "sums"):
        tables = [read_table(tmp_path / f"{folder}/{name}.parquet") for folder in ("undisturbed", "killed")]
        assert tables[0].equals(tables[1]), name
    assert not (tmp_path / "killed/partial").exists()


def test_a_damaged_or_foreign_state_of_lanczos_is_set_aside(tmp_path):
    store = LanczosStore(tmp_path / "run", "task", 0.0)
    store.save([torch.ones(2, 3)], {"scalars": torch.zeros(1)})
    assert LanczosStore(tmp_path / "run", "task", 0.0).load()[0][0].shape == (2, 3)
    assert LanczosStore(tmp_path / "run", "another", 0.0).load() is None
    assert not (tmp_path / "run").exists()
    store.save([torch.ones(2, 3)], {"scalars": torch.zeros(1)})
    path = tmp_path / "run/vectors00001.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    assert LanczosStore(tmp_path / "run", "task", 0.0).load() is None
    store = LanczosStore(tmp_path / "run", "task", 0.0)
    store.save([torch.ones(2, 3)], {"scalars": torch.zeros(1)})
    path = tmp_path / "run/vectors00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")  # the structure is whole, a number is not
    assert LanczosStore(tmp_path / "run", "task", 0.0).load() is None


def test_what_another_network_or_other_data_left_behind_is_not_resumed(model, examples, tmp_path):
    with pytest.raises(Killed):
        spectra(model, examples, tmp_path, progress=KilledIn("ggn"))
    with torch.no_grad():
        model[0].weight += 0.1
    resumed = KilledIn("nothing")
    spectra(model, examples, tmp_path, progress=resumed)
    assert resumed.said == []


def test_a_network_comes_back_from_its_checkpoint_in_eval_mode(tmp_path):
    architecture = Architecture("mlp", (4,), 3, 0.05, "batch")
    trained = build_network("mlp", input_shape=(4,), classes=3, width=0.05, seed=9)
    save_model(trained, architecture, tmp_path / "m.safetensors", run="x")
    model, metadata = load_network(tmp_path / "m.safetensors")
    assert not model.training and metadata["run"] == "x"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), trained.parameters(), strict=True))
    with pytest.raises(InputError, match="checkpoint of another network"):
        load_network(tmp_path / "m.safetensors", Architecture("mlp", (4,), 3, 0.1, "batch"))


def test_weights_that_are_not_finite_stop_with_the_reason(model, examples, tmp_path):
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(ArithmeticError, match="diverged"):
        spectra(model, examples, tmp_path)
    assert not (tmp_path / "record.json").exists()


def test_traces_of_hessian_ggn_and_residual_add_up_for_every_start_vector(model, examples, tmp_path):
    spectra(model, examples, tmp_path)
    raw = read_table(tmp_path / "ritz.parquet").query("not deflated")
    trace = (raw["weight"] * raw["ritz_value"]).groupby([raw["start_vector"], raw["operator"]]).sum().unstack()
    assert trace["hessian"].to_numpy() == pytest.approx(trace["ggn"] + trace["residual"], rel=1e-10)
    assert len(trace) == 2 and trace["hessian"].nunique() == 2
