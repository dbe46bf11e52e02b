"""`python -m hessketch eigenpairs` on a network small enough for the exact answer."""

import numpy as np
import pytest
import torch

from hessketch.__main__ import main, parser
from hessketch.checkpoints import Architecture, save_model
from hessketch.commands.spectrum import load
from hessketch.curvature.dense import dense_hessian
from hessketch.networks.registry import network_of
from hessketch.records import read_record, read_table, read_tensors

DATA = "digits-8x8"
MLP = Architecture("mlp_tanh", (1, 8, 8), 10, width=0.2, norm="none")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "model.safetensors"
    save_model(network_of(MLP, seed=1), MLP, path)
    return path


def words(checkpoint, output, *more):
    return [
        "eigenpairs", "--checkpoint", str(checkpoint), "--dataset", DATA, "--examples-per-class", "6",
        "--device", "cpu", "--output", str(output), "--pairs", "12", *more,
    ]  # fmt: skip


def hessian_of(checkpoint, folder):
    """The exact Hessian of the command's own examples."""
    loaded = load(parser().parse_args(words(checkpoint, folder)))
    return dense_hessian(loaded.model, loaded.run.loss, loaded.examples.batches(100))


def found_in(folder):
    tensors, metadata = read_tensors(folder / "eigenvectors.safetensors")
    table = read_table(folder / "eigenvalues.parquet", {"eigenvalue": "f", "residual": "f", "rank": "i"})
    return table, tensors["eigenvectors"].double(), read_record(folder / "record.json"), metadata


@pytest.mark.parametrize("method", ["auto", "block_krylov"])
def test_pairs_are_those_of_the_exact_hessian_and_the_record_says_how(method, checkpoint, tmp_path, capsys):
    main(words(checkpoint, tmp_path, "--method", method))
    table, vectors, record, metadata = found_in(tmp_path)
    dense = hessian_of(checkpoint, tmp_path)
    exact = torch.linalg.eigvalsh(dense).numpy()
    exact = exact[np.argsort(-np.abs(exact))][:12]
    assert table["eigenvalue"].to_numpy() == pytest.approx(exact, rel=1e-3)
    assert list(table["rank"]) == list(range(1, 13))
    assert set(table["operator"]) == {"hessian"} and set(table["n"]) == {60}
    true = (dense @ vectors - vectors * torch.tensor(table["eigenvalue"].to_numpy())).norm(dim=0).numpy()
    assert (true <= table["residual"] + 1e-6).all()
    assert record["method"] == ("lanczos" if method == "auto" else method)
    assert record["converged"] == 12 and record["p"] == len(dense) == vectors.shape[0]
    assert "reason" in record and record["products"] >= 12 and "torch" in str(record["environment"])
    assert sum(np.prod(shape) for shape in metadata["parameter_order"].values()) == len(dense)
    said = capsys.readouterr().out
    assert f"hessian: {exact[0]:.4g}" in said and "±" in said
    assert not (tmp_path / "partial").exists()


def test_a_sketch_knows_its_residuals_only_where_they_are_asked_for(checkpoint, tmp_path, capsys):
    sketched = ["--method", "sketched", "--measurements", "60", "--passes", "3"]
    main(words(checkpoint, tmp_path / "a", *sketched))
    said = capsys.readouterr().out
    assert "±" not in said and "residuals are not known: --residuals measures them" in said
    main(words(checkpoint, tmp_path / "b", *sketched, "--residuals", "--probes", "8"))
    dense = hessian_of(checkpoint, tmp_path)
    exact = torch.linalg.eigvalsh(dense).numpy()
    exact = exact[np.argsort(-np.abs(exact))]
    (without, _, first, _), (known, vectors, second, _) = found_in(tmp_path / "a"), found_in(tmp_path / "b")
    assert without["residual"].isna().all() and first["errors"]["residual_squared"] > 0
    share = (np.sum(exact[12:] ** 2), np.sum(exact**2))
    assert without["share_left_lower"].iloc[-1] == 0
    assert without["share_left_upper"].iloc[-1] == pytest.approx(share[0] / share[1], rel=0.7)
    assert (without["share_left_upper"] > without["share_left_lower"]).all()
    assert f"leave out: {first['errors']['residual_squared'] / first['errors']['frobenius_squared']:.2g}" in said
    assert first["products"] == 60 + 30 and second["products"] == 60 + 8 + 12
    true = (dense @ vectors - vectors * torch.tensor(known["eigenvalue"].to_numpy())).norm(dim=0).numpy()
    assert known["residual"].to_numpy() == pytest.approx(true, rel=1e-2, abs=1e-6)
    said = capsys.readouterr().out
    assert "±" in said
    within = (known["residual"] <= 1e-3 * known["eigenvalue"].abs()).to_numpy()
    assert second["converged"] == (12 if within.all() else np.argmin(within)) < 12
    assert f"only the first {second['converged']} have converged to 0.001: give more measurements" in said


def test_a_sketch_without_probes_says_that_its_residuals_are_not_known(checkpoint, tmp_path, capsys):
    main(words(checkpoint, tmp_path, "--method", "sketched", "--probes", "0"))
    said = capsys.readouterr().out
    assert "residuals are not known" in said and "converged" not in said and "leave out" not in said
    assert found_in(tmp_path)[0]["share_left_upper"].isna().all()


def test_what_is_asked_of_a_sketch_is_not_ignored_in_silence(checkpoint, tmp_path, capsys):
    main(words(checkpoint, tmp_path, "--passes", "2", "--residuals"))
    assert "lanczos" in (said := capsys.readouterr().out) and "asked of a sketch is not used" in said


@pytest.mark.parametrize("method", ["lanczos", "sketched"])
def test_a_killed_run_continues_to_the_same_numbers(method, checkpoint, tmp_path, monkeypatch):
    more = ["--method", method, "--save-every", "0"]
    main(words(checkpoint, tmp_path / "whole", *more))
    products = _Killing(12 if method == "lanczos" else 2)
    with monkeypatch.context() as patched:
        patched.setattr("hessketch.curvature.operators.CurvatureOperator.__matmul__", products)
        with pytest.raises(SystemExit):
            main(words(checkpoint, tmp_path / "killed", *more))
    assert (tmp_path / "killed/partial" / method).is_dir()
    resumed = _Killing(None)
    with monkeypatch.context() as patched:
        patched.setattr("hessketch.curvature.operators.CurvatureOperator.__matmul__", resumed)
        main(words(checkpoint, tmp_path / "killed", *more))
    whole, again = found_in(tmp_path / "whole"), found_in(tmp_path / "killed")
    assert np.array_equal(whole[0]["eigenvalue"], again[0]["eigenvalue"])
    assert torch.equal(whole[1], again[1])
    assert resumed.columns < whole[2]["products"]


class _Killing:
    """The operator's product, until a number of calls is reached: then the user interrupts."""

    def __init__(self, calls):
        self.left, self.columns = calls, 0

    def __get__(self, operator, kind):
        return lambda other: self(operator, other)

    def __call__(self, operator, other):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1
        self.columns += 1 if other.ndim == 1 else other.shape[1]
        return operator._multiply(other, None)


def test_another_operator_is_a_flag_away(checkpoint, tmp_path):
    main(words(checkpoint, tmp_path, "--operator", "ggn", "--pairs", "3"))
    table, _, record, _ = found_in(tmp_path)
    assert set(table["operator"]) == {"ggn"} and record["operator"] == "ggn"
    assert (table["eigenvalue"] > 0).all() and len(table) == 3


def test_what_a_user_may_get_wrong_is_said_without_a_traceback(checkpoint, tmp_path, capsys):
    def error(*more):
        with pytest.raises(SystemExit) as stopped:
            main(words(checkpoint, tmp_path / "out", *more))
        assert stopped.value.code != 0
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said

    assert "allowed: 1 to" in error("--pairs", "100000")
    assert "--passes belongs to method sketched" in error("--method", "lanczos", "--passes", "2")
    assert "--residuals belongs to method sketched" in error("--method", "block_krylov", "--residuals")
    assert "tolerance is 2.0" in error("--tolerance", "2")
    assert "take method sketched" in error("--method", "lanczos", "--memory-gib", "0.0001")
    assert "invalid choice: 'lanczoz'" in error("--method", "lanczoz")
    assert "module:function" in error("--network", ":f")
    assert not (tmp_path / "out").exists()


def test_help_shows_examples_and_defaults():
    text = parser()._subparsers._group_actions[0].choices["eigenpairs"].format_help()
    assert "examples:" in text and "--pairs 200" in text and "(default: auto)" in text
    assert "eigenpairs --checkpoint" in parser().format_help()
