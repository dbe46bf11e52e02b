"""From ends of trainings to tables: which are compared, what rows say, what a kill or a divergence loses."""

import math
import runpy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from torch import Tensor, nn

from hessketch.curvature.dense import dense_hessian
from hessketch.curvature.losses import LOSSES, evaluation
from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import PreparedData, prepare_dataset
from hessketch.errors import InputError, NotFiniteError
from hessketch.landscape import basins_job
from hessketch.landscape.basins_job import COLUMNS, TABLES, BasinSettings, measure_basins
from hessketch.landscape.ends import Pair, Solution, pairs_of, read_solution
from hessketch.landscape.lines import MEASURED
from hessketch.landscape.paths import PathSettings, find_path
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.records import read_record, read_table, write_tensors
from hessketch.runs import Run
from hessketch.training.trajectories import follow_runs
from hessketch.training.trajectory import TrajectorySettings

LARGE = Run("digits-4x4", 0.0, 4, "mlp", "none", 0.016, "cross_entropy", "sgd-b20", 0.1, 0)
SMALL, SWITCHED = replace(LARGE, trainer="sgd-b5"), replace(LARGE, trainer="sgd-b20-b5")
RUNS = [replace(run, seed=seed) for run in (LARGE, SMALL, SWITCHED) for seed in (0, 1)]
WILD = replace(LARGE, loss="mean_squared_error", learning_rate=1e4)  # diverges
P = 16 * 4 + 4 + 4 * 4 + 4 + 4 * 10 + 10
SETTINGS = BasinSettings(points=4)
SEARCH = PathSettings(steps=110, batch_size=10, bends=2)
SHORT = replace(SEARCH, steps=1)
PAIRS = ["continued", "same_start", "other_start"]


@dataclass
class Trainings:
    """The runs above on the disk."""

    folder: Path
    data: PreparedData

    def examples(self, run: Run, split: str):
        return examples_of_run(run, self.data, split, run.examples_per_class if split == "train" else 5)

    def solution(self, run: Run) -> Solution:
        return read_solution(self.folder / run.path, run, self.examples(run, "train"), self.examples(run, "test"))


@pytest.fixture(scope="module")
def trainings(tmp_path_factory) -> Trainings:
    made = Trainings(tmp_path_factory.mktemp("trajectories"), prepare_dataset("digits-4x4", "absent"))
    follow_runs(
        [*RUNS, WILD],
        lambda run: (made.examples(run, "train"), made.examples(run, "test")),
        lambda run, train: (TrajectorySettings(steps=150, switch_step=100), [150]),
        lambda run: made.folder / run.path,
        device=torch.device("cpu"),
    )
    return made


def measure(trainings, output, runs=RUNS, settings=SETTINGS, search=SEARCH, solution=None, **options):
    return measure_basins(
        runs, solution or trainings.solution, settings, search, output, device=torch.device("cpu"), **options
    )


def read(output) -> dict[str, pandas.DataFrame]:
    assert {path.name for path in output.iterdir()} == {*(f"{name}.parquet" for name in TABLES), "record.json"}
    return {name: read_table(output / f"{name}.parquet") for name in TABLES}


@pytest.fixture(scope="module")
def measured(trainings, tmp_path_factory) -> tuple[dict, dict]:
    output = tmp_path_factory.mktemp("measured")
    record = measure(trainings, output)
    return read(output), record


def loaded(end: Solution) -> nn.Module:
    model = network_of(end.architecture).eval()
    model.load_state_dict(end.weights)
    return model


def flat(end: Solution) -> Tensor:
    """In the order of the parameters, which is not that of the tensors in a file."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in loaded(end).parameters()]).double()


def ends_of(row, trainings) -> tuple[Solution, Solution]:
    first = replace(LARGE, trainer=row["first_trainer"], seed=row["seed"])
    second = replace(LARGE, trainer=row["second_trainer"], seed=row["second_seed"])
    return trainings.solution(first), trainings.solution(second)


def test_pairs_of_a_seed_are_continued_from_the_same_start_and_from_another():
    pairs = pairs_of([replace(run, seed=seed) for run in (SWITCHED, SMALL, LARGE) for seed in (3, 5, 4)])
    of_seed_5 = [pair for pair in pairs if pair.first.seed == 5]
    large = replace(LARGE, seed=5)
    assert of_seed_5 == [
        Pair("continued", large, replace(SWITCHED, seed=5)),
        Pair("same_start", large, replace(SMALL, seed=5)),
        Pair("other_start", large, replace(SMALL, seed=4)),
    ]
    next_seeds = {pair.first.seed: pair.second.seed for pair in pairs if pair.name == "other_start"}
    assert next_seeds == {3: 5, 5: 4, 4: 3} and len(pairs) == 9


def test_a_single_seed_has_no_other_start_and_full_batches_are_large_ones():
    full, switched = replace(LARGE, trainer="sgd-full"), replace(LARGE, trainer="sgd-full-b5")
    pairs = pairs_of([full, SMALL, switched])
    assert [(pair.name, pair.first, pair.second) for pair in pairs] == [
        ("continued", full, switched),
        ("same_start", full, SMALL),
    ]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([LARGE, SMALL], "no run takes large batches first and small ones later; give one as sgd-b250-b10"),
        ([LARGE, SWITCHED], r"sgd-b5/lr0.1/seed0: not among the runs, but the pair same_start has it"),
        ([*RUNS[1:]], r"sgd-b20/lr0.1/seed0: not among the runs, but the pair"),
        ([*RUNS, replace(LARGE, trainer="sgd-b7")], r"sgd-b7/lr0.1/seed0: in no pair; leave it out"),
        ([*RUNS, replace(LARGE, learning_rate=0.2)], r"sgd-b20/lr0.2/seed0: in no pair"),
    ],
)
def test_runs_without_their_pairs_are_refused(runs, message):
    with pytest.raises(InputError, match=message):
        pairs_of(runs)


def test_the_tables_have_their_columns_and_a_row_for_each_point_and_for_each_path(measured):
    tables, record = measured
    for name, table in tables.items():
        assert list(table) == COLUMNS[name]
        texts = {"dataset", "network", "norm", "loss", "pair", "first_trainer", "second_trainer", "path"}
        whole = {"examples_per_class", "seed", "second_seed", "n", "p", "classes", "path_steps"}
        for column in table:
            kind = "str" if column in texts else "int64" if column in whole else "float64"
            assert str(table[column].dtype) == ("bool" if column == "same_examples" else kind), column
        assert not table.isna().any().any()
        assert set(table["n"]) == {40} and set(table["p"]) == {P} and set(table["classes"]) == {10}
    keys = ["pair", "seed", "path"]
    for (_, _, path), rows in tables["paths"].groupby(keys, sort=False):
        grid = [i / 4 for i in (range(-4, 9) if path == "line" else range(5))]
        assert rows["t"].tolist() == grid
    barriers = tables["barriers"]
    found = list(barriers[keys].itertuples(index=False, name=None))
    assert found == [(pair, seed, path) for seed in (0, 1) for pair in PAIRS for path in ("line", "found")]
    assert [(row["first"], row["second"], row["left_out"]) for row in record["measured"]][2] == (
        LARGE.path, replace(SMALL, seed=1).path, None,
    )  # fmt: skip
    assert record["settings"] == {"points": 4, "top": 0} and record["path"]["steps"] == 110
    assert set(barriers["path_steps"]) == {0, 110} and record["wall_seconds"] > 0


def test_ends_have_the_losses_that_their_runs_ended_with(measured, trainings):
    """Of a second end that was trained on others, over the examples of the first."""
    for _, row in measured[0]["barriers"].iterrows():
        ends = ends_of(row, trainings)
        splits = {"train": ends[0].train.batches(100), "test": ends[0].test.batches(100)}
        for name, end in zip(("first", "second"), ends, strict=True):
            wanted = evaluation(loaded(end), LOSSES["cross_entropy"], **splits)
            assert {key: row[f"{name}_{key}"] for key in MEASURED} == pytest.approx(wanted, rel=1e-5)
        record = read_record(trainings.folder / ends[0].run.path / "record.json")
        assert row["first_train_loss"] == pytest.approx(record["train_loss"], rel=1e-5)
        assert row["same_examples"] == (row["pair"] != "other_start")


def test_barriers_are_what_the_points_of_their_paths_say(measured):
    keys = ["pair", "seed", "path"]
    paths = measured[0]["paths"].groupby(keys)
    for _, row in measured[0]["barriers"].iterrows():
        points = paths.get_group(tuple(row[keys]))
        points = points[points["t"].between(0, 1)]
        for column, split in (("barrier", "train"), ("test_barrier", "test")):
            losses = points[f"{split}_loss"].to_numpy()
            straight = numpy.interp(points["t"], [0, 1], losses[[0, -1]])
            assert row[column] == pytest.approx((losses - straight).max(), abs=1e-12)
        assert row["highest_loss"] == points["train_loss"].max()


def test_moves_are_measured_against_the_hessian_formed_whole(measured, trainings):
    for _, row in measured[0]["barriers"].iterrows():
        ends = ends_of(row, trainings)
        move = flat(ends[1]) - flat(ends[0])
        assert row["distance"] == pytest.approx(float(move.norm()), rel=1e-5)
        hessian = dense_hessian(loaded(ends[0]), "cross_entropy", ends[0].train.batches(100))
        top = torch.linalg.eigh(hessian).eigenvectors[:, -10:]
        share = float((top.T @ move).square().sum() / move.square().sum())
        assert row["move_in_top"] == pytest.approx(share, rel=1e-3)
        assert row["move_chance"] == 10 / P
        assert row["length"] == pytest.approx(row["distance"], rel=1e-6) or row["path"] == "found"
        assert row["length"] >= row["distance"] * (1 - 1e-6)


def test_found_paths_rise_less_than_lines(measured):
    barriers = measured[0]["barriers"].pivot_table(index=["pair", "seed"], columns="path", values="barrier")
    assert (barriers["found"] <= barriers["line"] + 1e-9).all()
    other = barriers.loc["other_start"]
    assert (other["line"] > 0.05).all() and (other["found"] < other["line"] / 2).all()


def test_the_number_of_eigenvectors_is_the_callers_to_say(measured, trainings, tmp_path):
    runs = [run for run in RUNS if run.seed == 0]
    measure(trainings, tmp_path, runs, replace(SETTINGS, top=2), SHORT)
    found = read(tmp_path)["barriers"]
    assert found["pair"].unique().tolist() == PAIRS[:2] and set(found["move_chance"]) == {2 / P}
    assert (found["move_in_top"] < measured[0]["barriers"]["move_in_top"].iloc[:4]).all()


def test_mini_batches_of_a_path_are_of_all_examples_where_these_are_fewer(trainings, tmp_path):
    runs = [run for run in RUNS if run.seed == 0]
    for name, size in (("more", 100), ("as many", 40), ("all", 0), ("fewer", 39)):
        record = measure(trainings, tmp_path / name, runs, search=replace(SHORT, batch_size=size))
        assert [pair["path_batch_size"] for pair in record["measured"]] == [39 if name == "fewer" else 40] * 2
    tables = {name: read(tmp_path / name)["paths"] for name in ("more", "as many", "all", "fewer")}
    for name in ("more", "as many"):
        pandas.testing.assert_frame_equal(tables[name], tables["all"], check_exact=True)
    assert not tables["fewer"].equals(tables["all"])


def test_more_eigenvectors_than_parameters_are_refused_before_any_search(trainings, tmp_path, monkeypatch):
    monkeypatch.setattr(basins_job, "find_path", lambda *arguments, **options: pytest.fail("a path was searched for"))
    with pytest.raises(InputError, match=rf"continued: .*{P + 1} leading eigenvectors asked of {P} parameters"):
        measure(trainings, tmp_path, settings=replace(SETTINGS, top=P + 1))


def test_ends_of_the_same_examples_are_said_to_be_so(trainings, tmp_path):
    def shared(run: Run) -> Solution:
        return replace(trainings.solution(run), train=trainings.examples(LARGE, "train"))

    measure(trainings, tmp_path, search=SHORT, solution=shared)
    assert read(tmp_path)["barriers"]["same_examples"].all()


def assert_same(found, measured, runs):
    """The tables of runs of the first seed alone are the part of all that is theirs."""
    seeds = {run.seed for run in runs}
    for name, table in found.items():
        whole = measured[0][name]
        own = whole[whole["seed"].isin(seeds) & whole["second_seed"].isin(seeds)].reset_index(drop=True)
        assert len(own)
        pandas.testing.assert_frame_equal(table, own, check_exact=True)


class Killed(Exception):
    pass


class Killer(Progress):
    """Kills the search of the pair of a number, counted from 1, after so many steps."""

    def __init__(self, number: int, step: int):
        super().__init__("test")
        self.left, self.step = number, step

    def stage(self, name):
        self.left -= 1

        def report(done, total):
            if self.left == 0 and done >= self.step:
                raise Killed

        return report


def test_a_killed_job_goes_on_in_the_midst_of_a_path_and_ends_with_the_same_tables(
    measured, trainings, tmp_path, monkeypatch
):
    runs = [run for run in RUNS if run.seed == 0]
    with pytest.raises(Killed):
        measure(trainings, tmp_path, runs, progress=Killer(2, 100), save_every_seconds=0)
    assert {path.name for path in tmp_path.iterdir()} == {"partial"}
    begun = []

    def watched(*arguments, **options):
        steps = []
        path = find_path(*arguments, **{**options, "progress": lambda done, total: steps.append(done)})
        begun.append(steps[0])
        return path

    monkeypatch.setattr(basins_job, "find_path", watched)
    measure(trainings, tmp_path, runs)
    assert begun == [110]  # the first pair was done, the search of the second goes on after step 100
    assert_same(read(tmp_path), measured, runs)


@pytest.mark.parametrize("changes", [{"search": replace(SHORT, bends=3)}, {"settings": replace(SETTINGS, points=3)}])
def test_what_was_measured_with_other_settings_is_measured_again(trainings, tmp_path, changes):
    runs = [run for run in RUNS if run.seed == 0]
    with pytest.raises(Killed):
        measure(trainings, tmp_path / "killed", runs, search=SHORT, progress=Killer(2, 1))
    measure(trainings, tmp_path / "killed", runs, **{"search": SHORT, **changes})
    measure(trainings, tmp_path / "whole", runs, **{"search": SHORT, **changes})
    for name, table in read(tmp_path / "killed").items():
        pandas.testing.assert_frame_equal(table, read(tmp_path / "whole")[name], check_exact=True)


def test_other_weights_are_another_task(trainings):
    first, second = trainings.solution(LARGE), trainings.solution(SMALL)
    moved = replace(second, weights={name: tensor + 1e-3 for name, tensor in second.weights.items()})
    pair = Pair("same_start", LARGE, SMALL)
    task, other = (basins_job._task(pair, ends, SETTINGS, SEARCH) for ends in ((first, second), (first, moved)))
    assert task != other and task == basins_job._task(pair, (first, second), SETTINGS, SEARCH)


def test_pairs_of_a_run_that_diverged_are_left_out_with_the_reason(measured, trainings, tmp_path):
    def one_diverged(run: Run) -> Solution:
        solution = trainings.solution(run)
        diverged = run == replace(SMALL, seed=1)
        return replace(solution, weights={}, diverged_at="step 7") if diverged else solution

    record = measure(trainings, tmp_path, solution=one_diverged)
    reasons = [row["left_out"] for row in record["measured"]]
    reason = f"{replace(SMALL, seed=1).path} diverged at step 7"
    assert reasons == [None, None, reason, None, reason, None]
    for name, table in read(tmp_path).items():
        whole = measured[0][name]
        kept = whole[whole["second_trainer"].ne("sgd-b5") | whole["second_seed"].ne(1)].reset_index(drop=True)
        pandas.testing.assert_frame_equal(table, kept, check_exact=True)


def test_runs_that_all_diverged_leave_tables_without_rows(trainings, tmp_path):
    wild = trainings.solution(WILD)
    assert wild.weights == {} and wild.diverged_at.startswith("step ")
    record = measure(trainings, tmp_path, solution=lambda run: replace(wild, run=run))
    reasons = [row["left_out"] for row in record["measured"]]
    assert reasons[0] == f"{LARGE.path} diverged at {wild.diverged_at}; {SWITCHED.path} diverged at {wild.diverged_at}"
    assert all(reasons) and len(reasons) == 6
    assert all(len(table) == 0 and list(table) == COLUMNS[name] for name, table in read(tmp_path).items())


def test_a_run_whose_last_weights_were_not_kept_is_refused(trainings, tmp_path):
    run = replace(LARGE, learning_rate=0.05)
    examples = trainings.examples(run, "train"), trainings.examples(run, "test")
    for kept, found in (([0, 3], "3"), ([], "none")):
        follow_runs(
            [run],
            lambda run: examples,
            lambda run, train, kept=kept: (TrajectorySettings(steps=5), kept),
            lambda run: tmp_path,
            device=torch.device("cpu"),
        )
        with pytest.raises(InputError, match=f"kept are of step {found}, the training ended with step 5; .*--keep 5"):
            read_solution(tmp_path, run, *examples)


@pytest.mark.parametrize("kind", [NotFiniteError, InputError])
def test_an_error_names_its_pair(trainings, tmp_path, monkeypatch, kind):
    def fail(*arguments, **options):
        raise kind("step 3 of the path's search")

    monkeypatch.setattr(basins_job, "find_path", fail)
    with pytest.raises(kind, match=f"continued: {LARGE.path} and {SWITCHED.path}: step 3"):
        measure(trainings, tmp_path)


def test_bad_settings_are_all_named_at_once():
    with pytest.raises(InputError, match=r"points: 1 given; .*top: -1 given; allowed: .*one a class"):
        BasinSettings(points=1, top=-1)


def test_the_script_measures_runs_on_the_disk(measured, trainings, tmp_path):
    script = runpy.run_path(str(Path(__file__).parents[3] / "workflow/scripts/basins.py"))
    runs = [run for run in RUNS if run.seed == 0]
    write_tensors(trainings.data.to_tensors(), tmp_path / "digits.safetensors", {"dataset": LARGE.dataset})
    arguments = script["parser"].parse_args(
        [*(run.path for run in runs), "--trajectories", str(trainings.folder), "--data",
         str(tmp_path / "digits.safetensors"), "--output", str(tmp_path / "out"), "--test-examples-per-class", "5",
         "--points", "4", "--steps", "110", "--batch-size", "10", "--bends", "2", "--device", "cpu"]
    )  # fmt: skip
    script["measure"](arguments, Progress("test"))
    assert_same(read(tmp_path / "out"), measured, runs)
    assert math.isfinite(read_record(tmp_path / "out/record.json")["wall_seconds"])
