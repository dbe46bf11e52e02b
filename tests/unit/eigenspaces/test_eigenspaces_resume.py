"""What a kill loses of a job on eigenspaces, and what its points leave out."""

import math
from dataclasses import replace

import pandas
import pytest
from eigenspace_jobs import OTHER, QUICK, RUN, SETTINGS, STEPS, WILD, measure, of, read

from hessketch.eigenspaces import measuring, room
from hessketch.eigenspaces.job import _task
from hessketch.eigenspaces.subjects import Subject
from hessketch.eigenspaces.tables import TABLES
from hessketch.errors import InputError, NotFiniteError


class Killed(Exception):
    pass


def assert_same(found, expected):
    for name in TABLES:
        tables = [table.drop(columns="seconds", errors="ignore") for table in (found[name], expected[name])]
        pandas.testing.assert_frame_equal(*tables, check_exact=True)


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
