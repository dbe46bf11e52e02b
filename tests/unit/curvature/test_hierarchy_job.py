"""The hierarchy of the outliers of one network: tables against matrices, a kill, and what is refused."""

import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from hessketch.checkpoints import Architecture, save_model
from hessketch.curvature import hierarchy_job
from hessketch.curvature.class_mean_operators import PARTS, part_operator
from hessketch.curvature.class_means import ClassMeans, class_means, embedding
from hessketch.curvature.hierarchy_job import HierarchySettings, alignment_table, hierarchy_of_network
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.linalg.leading_eigenpairs import leading_eigenpairs
from hessketch.linalg.subspaces import principal_angles
from hessketch.networks.mlp import mlp
from hessketch.networks.registry import build_network
from hessketch.records import read_record, read_table
from hessketch.runs import Run
from hessketch.seeds import derive_seed

SETTINGS = HierarchySettings(tolerance=1e-9)
TABLES = ("parts", "means", "alignment")
P = 4 * 5 + 5 + 5 * 3 + 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return mlp(4, 3, hidden=(5,), activation=nn.Tanh).double().eval()


def examples(counts=(8, 3, 5)) -> Examples:
    generator = torch.Generator().manual_seed(1)
    targets = torch.cat([torch.full((count,), c) for c, count in enumerate(counts)])
    return Examples(torch.randn(len(targets), 4, generator=generator, dtype=torch.float64), targets, len(counts))


def hierarchy(output, model=None, data=None, settings=SETTINGS, loss="cross_entropy", **options):
    return hierarchy_of_network(model or network(), loss, data or examples(), settings, output, seed=5, **options)


def read(output) -> dict[str, pandas.DataFrame]:
    assert {path.name for path in output.iterdir()} == {*(f"{name}.parquet" for name in TABLES), "record.json"}
    return {name: read_table(output / f"{name}.parquet") for name in TABLES}


def matrices(model=None, data=None) -> dict[str, torch.Tensor]:
    model, data = model or network(), data or examples()
    means, eye = class_means(model, data), torch.eye(P, dtype=torch.float64)
    return {part: part_operator(part, model, data.batches(99), means) @ eye for part in PARTS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict, dict]:
    """Tables and record of a job that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole")
    record = hierarchy(output, columns={"dataset": "some", "split": "train"})
    return read(output), record


def test_parts_hold_the_leading_eigenvalues_of_each_matrix(whole):
    tables, record = whole
    parts, dense = tables["parts"], matrices()
    assert list(parts) == ["dataset", "split", "n", "p", "classes", "part", "rank", "eigenvalue", "residual"]
    assert parts["part"].unique().tolist() == list(PARTS)
    for part, rows in parts.groupby("part"):
        count = {"G1": 3, "G2": 3}.get(part, 6)
        expected = torch.linalg.eigvalsh(dense[part]).flip(0)[:count].numpy()
        assert rows["rank"].tolist() == list(range(1, count + 1))
        np.testing.assert_allclose(rows["eigenvalue"], expected, rtol=1e-7, atol=1e-12)
        assert (rows["residual"] == 0).all() == (part in ("G1", "G2", "G1+2"))
        assert (rows["residual"] <= 1e-6 * rows["eigenvalue"].max()).all()
    assert record["n"] == 16 and record["p"] == P and record["examples_of_classes"] == [8, 3, 5]
    assert set(record["runs"]) == {"G", "G0", "G3"} and all(run["converged"] for run in record["runs"].values())
    assert HierarchySettings(**record["settings"]) == SETTINGS


def test_by_kept_terms_the_eigenvalues_are_the_same_and_the_record_says_so(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(hierarchy_job, "worth_keeping", lambda *arguments: True)
    record = hierarchy(tmp_path, columns={"dataset": "some", "split": "train"})
    assert {run["by"] for run in record["runs"].values()} == {"kept terms"}
    assert {run["by"] for run in whole[1]["runs"].values()} == {"network"}
    found = read(tmp_path)
    np.testing.assert_allclose(found["parts"]["eigenvalue"], whole[0]["parts"]["eigenvalue"], rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(found["alignment"]["overlap"], whole[0]["alignment"]["overlap"], rtol=1e-6)


def test_means_have_their_norms_and_places(tmp_path):
    hierarchy(tmp_path, data=examples((8, 0, 5)))
    table, means = read(tmp_path)["means"], class_means(network(), examples((8, 0, 5)))
    assert list(zip(table["true_class"], table["other_class"], strict=True)) == [
        *((c, other) for c in range(3) for other in range(3)), *((c, -1) for c in range(3))
    ]  # fmt: skip
    norms = torch.cat([means.cross.flatten(0, 1), means.of_classes()]).norm(dim=1)
    norms[torch.tensor([3, 4, 5, 10])] = math.nan
    np.testing.assert_allclose(table["mean_norm"], norms, rtol=1e-9)
    places = embedding(means, derive_seed(5, "class means", "t-SNE"))
    np.testing.assert_array_equal(table[["pca_1", "pca_2", "tsne_1", "tsne_2"]], places)


def test_alignment_is_the_mean_squared_cosine_of_the_angles_with_the_span_of_the_class_means(whole):
    table = whole[0]["alignment"]
    vectors = torch.linalg.eigh(matrices()["G"])[1].flip(1)
    span = torch.linalg.qr(class_means(network(), examples()).of_classes().T).Q
    assert table["k"].tolist() == [2, 3]
    for k, found in zip(table["k"], table["overlap"], strict=True):
        expected = float(principal_angles(vectors[:, :k], span).cos().square().mean())
        assert found == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(table["chance"], 3 / P)


def test_the_chance_of_an_alignment_is_its_mean_over_random_spaces():
    generator = torch.Generator().manual_seed(0)
    cross = torch.randn(3, 3, 50, generator=generator, dtype=torch.float64)
    cross[2] = cross[1]  # a class mean of its own is missing: the span has two dimensions
    means, found = ClassMeans(cross.contiguous(), torch.full((3,), 2)), []
    assert means.of_classes().shape == (3, 50)
    for _ in range(150):
        vectors = torch.linalg.qr(torch.randn(50, 3, generator=generator, dtype=torch.float64)).Q
        found.append(alignment_table(means, vectors)["overlap"].to_numpy())
    chance = alignment_table(means, vectors)["chance"].to_numpy()
    np.testing.assert_allclose(np.mean(found, axis=0), chance, rtol=0.15)


def test_pairs_that_were_not_found_leave_no_overlap_and_are_said(tmp_path):
    record = hierarchy(tmp_path, settings=replace(SETTINGS, max_steps=1))
    table = read(tmp_path)
    assert table["alignment"]["overlap"].isna().all() and not record["runs"]["G"]["converged"]
    assert set(table["parts"]["part"]) >= {"G1", "G2", "G1+2"}


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2])
def test_a_killed_job_goes_on_with_the_part_that_was_not_finished(whole, tmp_path, monkeypatch, after):
    calls, columns = [], {"dataset": "some", "split": "train"}

    def dying(*arguments, **options):
        if len(calls) >= after:
            raise Killed
        calls.append(arguments)
        return leading_eigenpairs(*arguments, **options)

    monkeypatch.setattr(hierarchy_job, "leading_eigenpairs", dying)
    with pytest.raises(Killed):
        hierarchy(tmp_path / "killed", columns=columns)
    assert not list((tmp_path / "killed").glob("*.parquet"))
    calls, done, after = [], after, math.inf
    hierarchy(tmp_path / "killed", columns=columns)
    assert len(calls) == 3 - done
    found, expected = read(tmp_path / "killed"), whole[0]
    for name in TABLES:
        pandas.testing.assert_frame_equal(found[name], expected[name], check_exact=True)


class Dying:
    """A progress that raises at the third product with G."""

    def __init__(self, calls: list):
        self._calls = calls

    def say(self, text):
        pass

    def stage(self, name):
        def report(done, total):
            if name == "G: product":
                self._calls.append(done)
                if len(self._calls) == 3:
                    raise Killed

        return report


def test_a_kill_in_the_middle_of_a_part_loses_what_came_after_the_last_save(whole, tmp_path):
    calls, columns = [], {"dataset": "some", "split": "train"}
    with pytest.raises(Killed):
        hierarchy(tmp_path, columns=columns, save_every=0, progress=Dying(calls))
    before, resumed = calls[-1], [0] * 3
    hierarchy(tmp_path, columns=columns, save_every=0, progress=Dying(resumed))
    assert before == resumed[3] == 3  # the product that was killed, not the first
    for name, table in read(tmp_path).items():
        pandas.testing.assert_frame_equal(table, whole[0][name], check_exact=True)


def test_another_task_does_not_take_what_was_left(tmp_path, monkeypatch):
    def dying(*arguments, **options):
        if calls:
            raise Killed
        calls.append(arguments)
        return leading_eigenpairs(*arguments, **options)

    monkeypatch.setattr(hierarchy_job, "leading_eigenpairs", dying)
    for data in (examples(), examples((3, 8, 5))):
        calls = []
        with pytest.raises(Killed):
            hierarchy(tmp_path, data=data)
        assert len(calls) == 1


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(InputError, match="loss 'mean_squared_error' given; allowed: cross_entropy"):
        hierarchy(tmp_path, loss="mean_squared_error")
    with pytest.raises(InputError, match=r"cross-class means .* would fit"):
        hierarchy(tmp_path, memory=1000)
    with pytest.raises(InputError, match=r"tolerance: 0 given; .*max_steps: 0 given; .*batch_size: 0 given"):
        HierarchySettings(tolerance=0, max_steps=0, batch_size=0)
    assert not list(tmp_path.iterdir())


def test_the_script_takes_a_selected_network(tmp_path, monkeypatch):
    from hessketch.data import of_run, prepared

    run = Run("digits-4x4", 0.0, 4, "mlp", "none", 0.02, "cross_entropy", "sgd", 0.1, 0)
    architecture = Architecture("mlp", (4,), 3, 0.02, "none")
    model = build_network("mlp", input_shape=(4,), classes=3, width=0.02, norm="none", seed=0)
    save_model(model, architecture, tmp_path / "model.safetensors", run=run.path)
    data = Examples(examples().inputs.float(), examples().targets, 3)
    monkeypatch.setattr(prepared, "read_prepared", lambda path: path)
    monkeypatch.setattr(of_run, "examples_of_run", lambda run, data_of, split, per_class: data)
    names = runpy.run_path(str(Path(__file__).parents[3] / "workflow/scripts/class_means.py"))
    words = [run.cell.path, "--split", "train", "--model", tmp_path / "model.safetensors", "--data", "x"]
    words += ["--output", tmp_path / "out", "--memory-gib", "1", "--device", "cpu", "--batch-size", "7"]

    class Quiet:
        said: list = []  # noqa: RUF012

        def say(self, text):
            self.said.append(text)

        def stage(self, name):
            return lambda done, total: None

    names["hierarchy"](names["parser"].parse_args(list(map(str, words))), Quiet())
    tables = read(tmp_path / "out")
    assert set(tables["parts"]["learning_rate"]) == {0.1} and set(tables["parts"]["split"]) == {"train"}
    expected = class_means(model.eval(), data).eigenvalues("G1+2")
    rows = tables["parts"][tables["parts"]["part"] == "G1+2"]
    np.testing.assert_allclose(rows["eigenvalue"], expected, rtol=1e-3, atol=1e-8)
    record = read_record(tmp_path / "out" / "record.json")
    assert record["settings"]["batch_size"] == 7 and any("accuracy" in text for text in Quiet.said)
