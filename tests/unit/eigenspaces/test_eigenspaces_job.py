"""From kept weights to tables: what stands in every row, against dense linear algebra, and what a kill loses."""

import math
import re
from collections import namedtuple
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import pandas
import pytest
import torch

from hessketch.curvature.losses import cross_entropy
from hessketch.data.examples import Examples
from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import prepare_dataset
from hessketch.eigenspaces import measuring, room
from hessketch.eigenspaces.eigenpairs import exact_memory
from hessketch.eigenspaces.job import _task, measure_runs
from hessketch.eigenspaces.settings import EigenspaceSettings
from hessketch.eigenspaces.subjects import Subject, first_of_each_class, points_at_steps, points_of_rounds
from hessketch.eigenspaces.tables import TABLES
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.grassmannian import METRICS
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.records import read_record, read_table
from hessketch.runs import IDENTITY, Run
from hessketch.training.trajectories import follow_runs
from hessketch.training.trajectory import TrajectorySettings
from hessketch.trajectories import read_trajectory

RUN = Run("digits-4x4", 0.0, 4, "mlp", "none", 0.016, "cross_entropy", "sgd-b10", 0.02, 0)
OTHER = replace(RUN, seed=1)
WILD = replace(RUN, loss="mean_squared_error", learning_rate=1e4)  # diverges
HIDDEN, P = 4, 16 * 4 + 4 + 4 * 4 + 4 + 4 * 10 + 10
STEPS, FULL = [0, 5, 40], [0, 40]
SETTINGS = EigenspaceSettings(
    pairs=12, measurements=50, probes=6, methods=("sketched", "exact", "lanczos"), ratios=(0.05,),
    stability_ratios=(0.03, 0.07),
)  # fmt: skip
K = 12
QUICK = replace(SETTINGS, methods=("exact",), splits=("test",))


@dataclass
class Trainings:
    """Trajectories of the runs above."""

    folder: object
    data: object

    def examples(self, run: Run, split: str) -> Examples:
        return examples_of_run(run, self.data, split, run.examples_per_class if split == "train" else 5)

    def subject(self, run: Run, /, **changes) -> Subject:
        """The first pixel of the Hessian's examples is dead."""
        architecture, kept = read_trajectory(self.folder / run.path / "trajectory.safetensors")
        finished = read_record(self.folder / run.path / "record.json")["status"] == "finished"
        halves = [first_of_each_class(self.examples(run, split), 3) for split in ("train", "test")]
        halves = [replace(half, inputs=half.inputs.clone()) for half in halves]
        for half in halves:
            half.inputs[:, 0, 0, 0] = 0
        points, stability = (points_at_steps(kept, steps, run, finished) for steps in (FULL, STEPS))
        return replace(Subject(run, architecture, points, finished, 40, *halves, stability), **changes)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory) -> Trainings:
    made = Trainings(tmp_path_factory.mktemp("trajectories"), prepare_dataset("digits-4x4", "absent"))
    follow_runs(
        [RUN, OTHER, WILD],
        lambda run: (made.examples(run, "train"), made.examples(run, "test")),
        lambda run, train: (TrajectorySettings(steps=40), STEPS),
        lambda run: made.folder / run.path,
        device=torch.device("cpu"),
    )
    return made


class Killed(Exception):
    pass


def measure(trainings, runs, output, settings=SETTINGS, subject_of=None, **options):
    return measure_runs(runs, subject_of or trainings.subject, settings, output, device=torch.device("cpu"), **options)


def read(output) -> dict[str, pandas.DataFrame]:
    assert {path.name for path in output.iterdir()} == {*(f"{name}.parquet" for name in TABLES), "record.json"}
    return {name: read_table(output / f"{name}.parquet") for name in TABLES}


def assert_same(found, expected):
    for name in TABLES:
        tables = [table.drop(columns="seconds", errors="ignore") for table in (found[name], expected[name])]
        pandas.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.fixture(scope="module")
def measured(trainings, tmp_path_factory) -> tuple[dict, dict]:
    output = tmp_path_factory.mktemp("measured")
    record = measure(trainings, [RUN], output)
    return read(output), record


def of(table, **given):
    for name, value in given.items():
        table = table[table[name] == value]
    return table


Dense = namedtuple("Dense", "theta matrix values vectors")


@pytest.fixture(scope="module")
def dense(trainings):
    """A function that writes out the Hessian of a step and split, float64, and its eigenpairs by magnitude."""
    subject = trainings.subject(RUN)

    @cache
    def written_out(step: int, split: str) -> Dense:
        point = next(point for point in subject.stability if point.time == step)
        model, examples = network_of(subject.architecture).double(), subject.examples(split)
        shapes = {name: q.shape for name, q in model.named_parameters()}
        theta = torch.cat([point.state[name].double().reshape(-1) for name in shapes])

        def loss(flat):
            pieces = flat.split([shape.numel() for shape in shapes.values()])
            named = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
            outputs = torch.func.functional_call(model, named, examples.inputs.double())
            return cross_entropy(outputs, examples.targets).mean()

        matrix = torch.autograd.functional.hessian(loss, theta).numpy()
        values, vectors = np.linalg.eigh(matrix)
        order = np.argsort(-np.abs(values))
        return Dense(theta.numpy(), matrix, values[order], vectors[:, order])

    return written_out


def largest(theta, k):
    return np.argsort(-np.abs(theta), kind="stable")[:k]


def test_the_tables_have_the_columns_and_kinds_that_they_say(measured):
    for name, table in measured[0].items():
        assert list(table) == [*IDENTITY, *TABLES[name]], name
        assert {column: str(table[column].dtype) for column in TABLES[name]} == TABLES[name], name


def test_every_point_split_and_method_has_its_rows(measured):
    rows = {"eigenvalues": K, "quality": 1, "overlaps": 3 * K, "metrics": 3 * len(METRICS), "layers": 2 * 6}
    for name, count in rows.items():
        counts = measured[0][name].groupby(["time", "split", "method"]).size()
        assert set(counts) == {count}, name
        assert set(counts.index) == set(product(FULL, ("train", "test"), SETTINGS.methods))


def test_every_row_starts_with_its_run_and_its_point(measured, trainings):
    facts = {point.time: point.facts for point in trainings.subject(RUN).points}
    for name in set(TABLES) - {"stability"}:
        table = measured[0][name]
        for column, value in {
            **RUN.identity(),
            "batch_size": 10,
            "kind": "step",
            "n": 40,
            "p": P,
            "classes": 10,
        }.items():
            assert set(table[column]) == {value}, (name, column)
        for time in FULL:
            for column in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
                assert set(of(table, time=time)[column]) == {facts[time][column]}


@pytest.mark.parametrize(("step", "split"), [(0, "train"), (40, "test")])
def test_what_is_measured_exactly_is_what_matrices_give(measured, dense, step, split):
    tables, true = measured[0], dense(step, split)
    here = {"time": step, "split": split, "method": "exact"}
    np.testing.assert_allclose(of(tables["eigenvalues"], **here)["eigenvalue"], true.values[:K], rtol=1e-8)
    row = of(tables["quality"], **here).iloc[0]
    assert row["frobenius_squared"] == pytest.approx((true.matrix**2).sum())
    assert row["residual_squared"] == pytest.approx((true.values[K:] ** 2).sum())
    assert math.isnan(row["subspace_overlap"]) and row["products"] == P and row["pairs"] == K
    overlaps = of(tables["overlaps"], **here)
    live = (true.matrix != 0).any(1)
    assert set(overlaps["live"]) == {live.sum()} and live.sum() <= P - HIDDEN, "one input is dead"
    for k in (1, 5, K):
        mask = np.eye(P)[:, largest(true.theta, k)]
        rows = of(overlaps, k=k).set_index("mask")
        leverages = (true.vectors[:, :k] ** 2).sum(1)
        assert rows.loc["magnitude", "overlap"] == pytest.approx(((mask.T @ true.vectors[:, :k]) ** 2).sum() / k)
        assert rows.loc["best", "overlap"] == pytest.approx(np.sort(leverages)[-k:].sum() / k)
        assert rows["chance"].tolist() == pytest.approx([k / P] * 3)
        assert rows["chance_live"].tolist() == pytest.approx([leverages[live].mean()] * 3)
    energies = of(tables["layers"], **here, k=K).set_index("layer")["energy"]
    assert energies["1.weight"] == pytest.approx((true.vectors[: 16 * HIDDEN, :K] ** 2).sum()) and len(energies) == 6


def test_the_other_methods_are_held_against_the_exact_one(measured, dense):
    quality = measured[0]["quality"].set_index(["time", "split", "method"])
    for time in FULL:
        for split in ("train", "test"):
            lanczos, sketched = quality.loc[(time, split, "lanczos")], quality.loc[(time, split, "sketched")]
            assert lanczos["eigenvalue_error"] < 1e-3 and lanczos["subspace_overlap"] > 0.99
            assert lanczos["products"] < P and math.isnan(lanczos["residual_squared"])
            assert sketched["products"] == 56 and sketched["residual_lower"] < sketched["residual_squared"]
            assert 0.9 < sketched["subspace_overlap_half"] <= 1 + 1e-6
            true = dense(time, split)
            assert lanczos["eigenvalue_error"] >= 0 and quality.loc[(time, split, "exact"), "negative_share"] == (
                pytest.approx((true.values < -1e-12 * true.values[0]).mean())
            )
    residuals = measured[0]["eigenvalues"].groupby("method")["residual"]
    assert residuals.count().to_dict() == {"exact": 4 * K, "lanczos": 4 * K, "sketched": 0}


def test_stability_compares_masks_and_eigenspaces_of_every_two_steps(measured, dense):
    table = measured[0]["stability"]
    assert len(table) == 2 * 6 * (1 + 2)
    assert set(table["n"]) == {40} and set(table["p"]) == {P}
    for ratio, k in ((0.03, 4), (0.07, 10)):
        for first, second in ((0, 40), (40, 40)):
            here = of(table, ratio=ratio, first=first, second=second).set_index("split")
            assert set(here["k"]) == {k}
            masks = [set(largest(dense(step, "train").theta, k)) for step in (first, second)]
            assert here.loc["", "similarity"] == pytest.approx(len(masks[0] & masks[1]) / len(masks[0] | masks[1]))
            for split in ("train", "test"):
                u, v = (dense(step, split).vectors[:, :k] for step in (first, second))
                assert here.loc[split, "similarity"] == pytest.approx(((u.T @ v) ** 2).sum() / k, abs=1e-4)


def test_eigenspaces_of_larger_networks_are_compared_as_products_find_them(trainings, measured, tmp_path, monkeypatch):
    for module in (measuring, room):
        monkeypatch.setattr(module, "FORMED", P - 1)
    record = measure(trainings, [RUN], tmp_path, replace(QUICK, stability_ratios=(0.03,)))
    assert record["measured"][0]["stability_eigenspaces"] == "many_eigenpairs: auto"
    found, exact = (of(table["stability"], split="test", ratio=0.03) for table in (read(tmp_path), measured[0]))
    assert found["similarity"].tolist() == pytest.approx(exact["similarity"].tolist(), abs=1e-3)


def diverged(trainings) -> Subject:
    """A start, and a step whose weights are NaN."""
    wild = trainings.subject(WILD)
    start = wild.points[0]
    broken = replace(start, time=7, state={name: tensor * math.nan for name, tensor in start.state.items()})
    return replace(wild, points=[start, broken], stability=[start, broken], finished=False)


def test_points_that_are_beyond_measure_are_left_out_of_a_run_that_diverged_with_the_reason_even_after_a_kill(
    trainings, tmp_path, monkeypatch
):
    subject, original = diverged(trainings), measuring.eigenspace_stability

    def dying(*arguments):
        raise Killed

    monkeypatch.setattr(measuring, "eigenspace_stability", dying)
    with pytest.raises(Killed):
        measure(trainings, [WILD], tmp_path, QUICK, subject_of=lambda run: subject)
    monkeypatch.setattr(measuring, "eigenspace_stability", original)
    measured_again = []
    monkeypatch.setattr(measuring.Measuring, "_measured", lambda *of: measured_again.append(of))
    record = measure(trainings, [WILD], tmp_path, QUICK, subject_of=lambda run: subject)
    assert not measured_again
    reason = "the weights hold NaN or infinity: they have diverged"
    assert record["measured"][0]["left_out"] == {"step 7, test": reason, "step 7, stability": reason}
    tables = read(tmp_path)
    assert set(tables["overlaps"]["time"]) == {0} and set(tables["stability"]["second"]) == {0}


@pytest.mark.parametrize(
    ("asked", "at", "place"), [("require_points", 3, "step 7"), ("require_stability", 2, "step 0, stability, test")]
)
def test_want_of_room_is_an_error_of_a_run_that_diverged_too(trainings, tmp_path, monkeypatch, asked, at, place):
    subject, calls = diverged(trainings), []

    def required(self, *steps):
        calls.append(steps)
        if len(calls) == at:  # once before all, then at each point
            raise InputError("no room")

    monkeypatch.setattr(room.Needs, asked, required)
    with pytest.raises(InputError, match=f"{WILD.path}, {place}: no room"):
        measure(trainings, [WILD], tmp_path, QUICK, subject_of=lambda run: subject)


def test_nan_in_the_weights_of_a_run_that_finished_is_an_error_that_names_run_and_step(trainings, tmp_path):
    subject = trainings.subject(RUN)
    state = {name: tensor.clone() for name, tensor in subject.points[1].state.items()}
    state["1.weight"][0, 3] = math.nan
    broken = replace(subject, points=[subject.points[0], replace(subject.points[1], state=state)])
    with pytest.raises(NotFiniteError, match=f"{RUN.path}, step 40, test: the weights hold NaN"):
        measure(trainings, [RUN], tmp_path, QUICK, subject_of=lambda run: broken)


def test_a_killed_job_goes_on_with_the_point_that_was_not_finished(trainings, tmp_path, monkeypatch):
    """Masks are looked at once for each of two runs' two points: the second run's second point is left."""
    original, calls, after = measuring.mask_tables, [], 3
    runs, options = [RUN, OTHER], {"subject_of": lambda run: trainings.subject(run, stability=())}

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(measuring, "mask_tables", dying)
    with pytest.raises(Killed):
        measure(trainings, runs, tmp_path / "killed", QUICK, **options)
    assert not list((tmp_path / "killed").glob("*.parquet"))
    monkeypatch.setattr(measuring, "mask_tables", lambda *arguments: calls.append(arguments) or original(*arguments))
    calls.clear()
    measure(trainings, runs, tmp_path / "killed", QUICK, **options)
    assert len(calls) == 1
    measure(trainings, runs, tmp_path / "whole", QUICK, **options)
    assert_same(read(tmp_path / "killed"), read(tmp_path / "whole"))


def test_a_kill_among_the_eigenspaces_of_the_stability_keeps_those_that_are_there(
    trainings, measured, tmp_path, monkeypatch
):
    original, made, most = measuring.Measuring._stability_space, [], 2

    def dying(self, point, split):
        if len(made) == most:
            raise Killed
        made.append(point.time)
        return original(self, point, split)

    monkeypatch.setattr(measuring.Measuring, "_stability_space", dying)
    with pytest.raises(Killed):
        measure(trainings, [RUN], tmp_path, QUICK)
    most = math.inf
    measure(trainings, [RUN], tmp_path, QUICK)
    assert made == STEPS
    table = measured[0]["stability"]
    expected = table[table["split"] != "train"].reset_index(drop=True)
    pandas.testing.assert_frame_equal(read(tmp_path)["stability"], expected, check_exact=True)


def test_measurements_that_memory_does_not_hold_go_to_files_and_change_nothing(
    trainings, measured, tmp_path, monkeypatch
):
    folders = []

    class Files(measuring.MeasurementFiles):
        def __init__(self, folder, task):
            folders.append(folder)
            super().__init__(folder, task)

    monkeypatch.setattr(measuring, "MeasurementFiles", Files)
    monkeypatch.setattr(room.Needs, "sketch_on_disk", lambda self: True)
    measure(trainings, [RUN], tmp_path, replace(QUICK, methods=("sketched",), stability_ratios=(0.01,)))
    assert len(folders) == 2 and all(tmp_path in folder.parents for folder in folders)
    assert not (tmp_path / "partial").exists()
    for name in ("eigenvalues", "overlaps"):
        expected = of(measured[0][name], split="test", method="sketched").reset_index(drop=True)
        pandas.testing.assert_frame_equal(read(tmp_path)[name], expected, check_exact=True)


def test_other_weights_examples_or_settings_are_another_task(trainings):
    subject = trainings.subject(RUN)
    moved = {name: tensor + 1e-3 for name, tensor in subject.points[1].state.items()}
    changed = [
        subject,
        replace(subject, points=[subject.points[0], replace(subject.points[1], state=moved)]),
        replace(subject, points=subject.points[:1]),
        replace(subject, stability=()),
        replace(subject, finished=False),
        replace(subject, train=replace(subject.train, inputs=subject.train.inputs + 1)),
    ]
    tasks = [_task(each, SETTINGS) for each in changed] + [_task(subject, replace(SETTINGS, pairs=11))]
    assert not any(task in tasks[:place] for place, task in enumerate(tasks))
    assert tasks[0] == _task(trainings.subject(RUN), SETTINGS)


def test_more_pairs_or_measurements_than_parameters_are_named_for_all_runs_before_anything_is_measured(
    trainings, tmp_path
):
    for settings, words in (
        (replace(SETTINGS, pairs=P), f"{P} pairs asked for, the network has {P} parameters; allowed: fewer than {P}"),
        (replace(SETTINGS, measurements=P + 1), f"12 pairs with {P + 1} measurements asked for"),
        (replace(SETTINGS, measurements=11), "12 pairs with 11 measurements asked for"),
        (replace(SETTINGS, measurements=23, sketch_method="paper"), "12 pairs with 23 measurements asked for"),
        (replace(SETTINGS, methods=("exact",), exact_up_to=P - 1), f"{P} parameters, exact_up_to is {P - 1}"),
    ):
        with pytest.raises(InputError, match=f"^{RUN.path}: {re.escape(words)}.*; {OTHER.path}: {re.escape(words)}"):
            measure(trainings, [RUN, OTHER], tmp_path, settings)
    assert not list(tmp_path.iterdir())


def test_a_network_beyond_exact_up_to_has_the_other_methods_alone(trainings, tmp_path):
    subject = trainings.subject(RUN, stability=())
    larger = replace(SETTINGS, exact_up_to=P - 1, splits=("test",))
    record = measure(trainings, [RUN], tmp_path, larger, subject_of=lambda run: subject)
    quality = read(tmp_path)["quality"]
    assert set(quality["method"]) == {"sketched", "lanczos"} and quality["subspace_overlap"].isna().all()
    assert record["measured"][0]["methods"] == ["lanczos", "sketched"]


def test_eigenspaces_that_the_disk_does_not_hold_beside_its_reserve_are_refused_with_what_would_fit(
    trainings, tmp_path, monkeypatch
):
    Usage = namedtuple("Usage", "free total")
    usage = Usage(2 * 4 * P * 10 + 1000, 20000)  # 5 % stay free
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: usage)
    words = f"^{RUN.path}: eigenspaces of 3 steps, 10 vectors of {P} parameters.*: 2 steps would fit.*; {OTHER.path}: "
    with pytest.raises(InputError, match=words):
        measure(trainings, [RUN, OTHER], tmp_path, QUICK)
    assert not list(tmp_path.iterdir()), "nothing was measured before"


@pytest.mark.parametrize(
    ("method", "memory", "words"),
    [
        ("exact", exact_memory(P) - 1, rf"decomposing the Hessian of {P} parameters takes .*enough for {P - 1} param"),
        ("lanczos", 2 * 4 * P * 120, r"12 eigenpairs .* by lanczos keep some 138 vectors, .*enough for 0 pairs"),
        ("sketched", 2**18, f"12 eigenpairs from 50 measurements of {P} parameters need .* would fit"),
    ],
)
def test_a_method_without_room_is_refused_for_all_runs_before_anything_is_measured(
    trainings, tmp_path, monkeypatch, method, memory, words
):
    monkeypatch.setattr(room, "free_disk", lambda folder: 10**4)
    runs = {"subject_of": lambda run: trainings.subject(run, stability=())}
    with pytest.raises(InputError, match=f"^{RUN.path}: {words}.*; {OTHER.path}: {words}"):
        measure(trainings, [RUN, OTHER], tmp_path, replace(QUICK, methods=(method,)), memory=memory, **runs)
    assert not list(tmp_path.iterdir())


def test_eigenspaces_of_the_stability_that_memory_does_not_hold_are_refused_with_what_would_fit(tmp_path):
    settings = replace(QUICK, pairs=1000, stability_ratios=(0.01,))
    needs = room.Needs(room.Size(90_000, torch.float32, torch.device("cpu")), settings, 2**29, tmp_path)
    with pytest.raises(InputError, match=r"^of the stability, 900 eigenpairs from 1810 .* would fit.*smaller"):
        needs.require_stability(1)
    replace(needs, memory=2**34).require_stability(1)


def test_eigenspaces_that_a_killed_job_left_on_the_disk_need_no_room_again(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "free_disk", lambda folder: 2 * 4 * P * 10)
    needs = room.Needs(room.Size(P, torch.float32, torch.device("cpu")), QUICK, None, tmp_path)
    with pytest.raises(InputError, match="2 steps would fit"):
        needs.require_stability(3)
    (tmp_path / "stability/test").mkdir(parents=True)
    (tmp_path / "stability/test/0.safetensors").touch()
    needs.require_stability(3)


def test_eigenspaces_of_ratios_beyond_the_pairs_are_not_compared_and_the_log_says_so(trainings, tmp_path, monkeypatch):
    sizes, exact = [], measuring.exact_eigenspace
    monkeypatch.setattr(measuring, "exact_eigenspace", lambda *of, **more: sizes.append(of[3]) or exact(*of, **more))
    log, subject = tmp_path / "log.txt", {"subject_of": lambda run: trainings.subject(run, points=())}
    with closing(Progress("test", log)) as progress:
        record = measure(trainings, [RUN], tmp_path / "out", replace(QUICK, pairs=9), progress=progress, **subject)
    table = read(tmp_path / "out")["stability"]
    assert set(of(table, of="mask")["k"]) == {4, 10} and set(of(table, of="eigenspace")["k"]) == {4}
    assert sizes == [4] * 3, "no more pairs than are compared"
    assert "of the ratios 0.07 masks alone are compared" in log.read_text()
    assert record["measured"][0]["stability_ratios_of_masks_alone"] == [0.07]


def test_pairs_that_did_not_converge_are_left_out_with_a_note_and_not_compared(trainings, tmp_path, monkeypatch):
    original, converged = measuring.krylov_eigenspace, {"lanczos": [7, 0], "auto": [4, 10, 2]}
    for module in (measuring, room):
        monkeypatch.setattr(module, "FORMED", P - 1)

    def some(*arguments, method="lanczos", **options):
        found, k = original(*arguments, method=method, **options), converged[method].pop(0)
        return replace(found, values=found.values[:k], vectors=found.vectors[:, :k], residuals=found.residuals[:k])

    monkeypatch.setattr(measuring, "krylov_eigenspace", some)
    log = tmp_path / "log.txt"
    with closing(Progress("test", log)) as progress:
        settings = replace(QUICK, methods=("lanczos",))
        record = measure(trainings, [RUN], tmp_path / "out", settings, progress=progress)
    tables = read(tmp_path / "out")
    assert tables["overlaps"]["k"].max() == 7 and set(tables["quality"]["time"]) == {0}
    spaces = of(tables["stability"], of="eigenspace").set_index(["k", "first", "second"])["similarity"]
    known = {(4, 0, 0), (4, 0, 5), (4, 5, 5), (10, 5, 5)}
    assert {at: not math.isnan(value) for at, value in spaces.items()} == {at: at in known for at in spaces.index}
    assert record["measured"][0]["not_converged"] == {
        "step 0, test, lanczos": "7 of 12 pairs converged (lanczos)",
        "step 40, test, lanczos": "0 of 12 pairs converged (lanczos)",
        "step 0, stability, test": "4 of 10 pairs converged (lanczos)",
        "step 40, stability, test": "2 of 10 pairs converged (lanczos)",
    }
    assert "step 40, stability, test: 2 of 10 pairs converged" in log.read_text()


def test_rounds_of_a_federation_are_points_of_which_less_is_known(trainings, tmp_path):
    run = replace(RUN, trainer="top_r-x10")
    kept = [
        ({"kind": kind, "round": time, "train_loss": 1.5, "target_loss": math.nan}, point.state)
        for kind, time, point in zip(("round", "loss"), (3, 4), trainings.subject(RUN).points, strict=True)
    ]
    subject = trainings.subject(RUN, run=run, points=points_of_rounds(kept), stability=())
    measure(trainings, [run], tmp_path, QUICK, subject_of=lambda run: subject)
    tables = read(tmp_path)
    table = tables["overlaps"]
    assert set(table["kind"]) == {"round"} and set(table["time"]) == {3} and set(table["batch_size"]) == {0}
    assert (
        set(table["train_loss"]) == {1.5} and table["train_accuracy"].isna().all() and table["test_loss"].isna().all()
    )
    assert tables["stability"].empty and list(tables["stability"]) == [*IDENTITY, *TABLES["stability"]]


def test_without_runs_the_tables_are_empty_and_have_their_columns(trainings, tmp_path):
    measure(trainings, [], tmp_path)
    for name, table in read(tmp_path).items():
        assert table.empty and list(table) == [*IDENTITY, *TABLES[name]]


def test_a_step_that_was_not_kept_is_refused_with_those_that_were_unless_the_run_diverged(trainings):
    _, kept = read_trajectory(trainings.folder / RUN.path / "trajectory.safetensors")
    with pytest.raises(InputError, match=f"{RUN.path}: no weights of step 7 were kept; there are steps 0, 5, 40"):
        points_at_steps(kept, [0, 7], RUN, True)
    assert [point.time for point in points_at_steps(kept, [7, 5], RUN, False)] == [5]
    assert [point.time for point in points_at_steps(kept, None, RUN, True)] == STEPS


def test_the_first_examples_of_each_class_are_taken_in_their_order():
    examples = Examples(torch.arange(7.0)[:, None], torch.tensor([1, 0, 0, 1, 1, 0, 1]), 2)
    first = first_of_each_class(examples, 2)
    assert first.inputs[:, 0].tolist() == [0, 1, 2, 3] and first.targets.tolist() == [1, 0, 0, 1]
    assert first_of_each_class(examples, None) is examples
    with pytest.raises(InputError, match=r"4 examples of each class asked .* class 0 has 3; allowed: 1 to 3"):
        first_of_each_class(examples, 4)


def test_the_record_says_how_each_run_was_measured(measured):
    _, record = measured
    assert [one["run"] for one in record["measured"]] == [RUN.path]
    assert EigenspaceSettings(
        **{name: tuple(v) if isinstance(v, list) else v for name, v in record["settings"].items()}
    )
    one = record["measured"][0]
    assert one["pairs"] == K and one["measurements"] == 50 and one["hessian_examples"] == {"train": 30, "test": 30}
    assert one["methods"] == ["exact", "lanczos", "sketched"] and one["stability_eigenspaces"] == "exact"
