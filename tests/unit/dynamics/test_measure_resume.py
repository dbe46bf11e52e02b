"""What a kill loses of the measurements, what a divergence leaves out, and what is refused."""

import math
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from measured_runs import (
    FULL,
    LARGER,
    NOISY,
    POINT,
    RUN,
    SETTINGS,
    SIGMAS,
    WILD_LARGER,
    WILDEST,
    P,
    assert_same,
    measure,
    of,
    read,
)

from hessketch import waiting_tables
from hessketch.dynamics import job
from hessketch.dynamics.eigenspaces import OPERATORS
from hessketch.dynamics.generalization_bound import SIGMAS as SIGMAS_OF_THE_PACKAGE
from hessketch.dynamics.job import DynamicsSettings, measure_runs
from hessketch.dynamics.loss_change import loss_changes
from hessketch.errors import InputError, NotFiniteError


class Killed(Exception):
    pass


def dying(function, calls, after):
    """Counts the calls of a measuring function by run, and raises after so many of them."""

    def measure(*arguments, **options):
        calls.append(arguments[1:3])
        if len(calls) > after:
            raise Killed
        return function(*arguments, **options)

    return measure


@pytest.mark.parametrize("after", [1, 7])
def test_a_killed_job_goes_on_with_the_run_that_was_not_finished(trainings, tmp_path, monkeypatch, after):
    runs = [RUN, NOISY, FULL]
    measure(trainings, runs, tmp_path / "whole")
    monkeypatch.setattr(job, "loss_changes", dying(loss_changes, [], after))
    with pytest.raises(Killed):
        measure(trainings, runs, tmp_path / "killed")
    assert not list((tmp_path / "killed").glob("*.parquet"))
    calls = []
    monkeypatch.setattr(job, "loss_changes", dying(loss_changes, calls, math.inf))
    record = measure(trainings, runs, tmp_path / "killed")
    assert len(calls) == 3 * (3 - after // 3)
    assert_same(read(tmp_path / "killed"), read(tmp_path / "whole"))
    assert len(record["measured"]) == 3


def test_a_kill_between_the_tables_of_a_run_counts_it_as_unfinished(trainings, tmp_path, monkeypatch):
    write, written = waiting_tables.write_table, []

    def die(table, path):
        written.append(path)
        if len(written) == 4:
            raise Killed
        write(table, path)

    monkeypatch.setattr(waiting_tables, "write_table", die)
    with pytest.raises(Killed):
        measure(trainings, [RUN], tmp_path / "killed")
    monkeypatch.setattr(waiting_tables, "write_table", write)
    measure(trainings, [RUN], tmp_path / "killed")
    measure(trainings, [RUN], tmp_path / "whole")
    assert_same(read(tmp_path / "killed"), read(tmp_path / "whole"))


@pytest.fixture(scope="module")
def killed(trainings, tmp_path_factory):
    """What a job leaves that was killed in its second run."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(job, "loss_changes", dying(loss_changes, [], 4))
        measure(trainings, [RUN, NOISY], folder)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": replace(SETTINGS, samples=41)},
        {"sigmas": (0.1, 2.0)},
        {"along": lambda run: False},
    ],
    ids=["settings", "sigmas", "along"],
)
def test_what_was_measured_with_other_settings_is_measured_again(trainings, killed, tmp_path, changes):
    shutil.copytree(killed, tmp_path / "killed")
    measure(trainings, [RUN, NOISY], tmp_path / "killed", **changes)
    measure(trainings, [RUN, NOISY], tmp_path / "whole", **changes)
    assert_same(read(tmp_path / "killed"), read(tmp_path / "whole"))


def test_other_weights_of_the_same_run_are_another_task(trainings):
    one = trainings.followed(RUN)
    facts, state = one.checkpoints[1]
    moved = {name: tensor + 1e-3 for name, tensor in state.items()}
    other = replace(one, checkpoints=[one.checkpoints[0], (facts, moved), one.checkpoints[2]])
    tasks = [job._task(f, SETTINGS, SIGMAS, True) for f in (one, other, replace(one, finished=False))]
    assert tasks[0] not in tasks[1:] and tasks[1] != tasks[2]
    assert tasks[0] == job._task(trainings.followed(RUN), SETTINGS, SIGMAS, True)


def test_large_networks_go_through_products_to_the_same_eigenvalues(measured, trainings, tmp_path):
    measure(trainings, [RUN], tmp_path, settings=replace(SETTINGS, exact_up_to=P - 1))
    found, exact = read(tmp_path), {name: of(table, RUN).reset_index() for name, table in measured[0].items()}
    assert not found["curvature"]["exact"].any() and exact["curvature"]["exact"].all()
    assert not found["loss_changes"]["exact"].any() and set(found["bounds"]["diagonal"]) == {"estimated"}
    assert found["eigenvalues"]["operator"].unique().tolist() == list(OPERATORS)
    assert found["eigenvalues"]["eigenvalue"].tolist() == pytest.approx(
        exact["eigenvalues"]["eigenvalue"].tolist(), rel=1e-3
    )
    assert found["loss_changes"]["mean"].tolist() == pytest.approx(exact["loss_changes"]["mean"].tolist(), rel=1e-3)


def test_a_run_that_diverged_and_is_not_followed_leaves_nothing_but_its_record(trainings, tmp_path):
    record = measure(trainings, [WILD_LARGER], tmp_path / "alone")
    assert all(len(table) == 0 and list(table) == list(POINT) for table in read(tmp_path / "alone").values())
    assert [one["run"] for one in record["measured"]] == [WILD_LARGER.path]
    measure(trainings, [WILD_LARGER, RUN], tmp_path / "both")
    measure(trainings, [RUN], tmp_path / "one")
    assert_same(read(tmp_path / "both"), read(tmp_path / "one"))


def test_what_a_diverged_run_does_not_allow_is_left_out_with_the_reason_and_other_runs_are_measured(
    trainings, tmp_path
):
    """In float32 the loss after one step of 1e15 is not finite."""
    settings = replace(SETTINGS, exact_up_to=0)
    record = measure(trainings, [WILDEST, RUN], tmp_path / "both", settings)
    wildest, sound = (one["left_out"] for one in record["measured"])
    assert list(wildest) == ["0"] and re.search("take a smaller learning_rate", wildest["0"]) and sound == {}
    measure(trainings, [RUN], tmp_path / "one", settings)
    assert_same(read(tmp_path / "both"), read(tmp_path / "one"))


@pytest.mark.parametrize("kind", [NotFiniteError, InputError])
def test_what_cannot_be_measured_of_a_run_that_finished_is_an_error_that_names_run_and_step(
    trainings, tmp_path, monkeypatch, kind
):
    def fail(*arguments, **options):
        raise kind("too large")

    monkeypatch.setattr(job, "generalization_bounds", fail)
    with pytest.raises(kind, match=f"{RUN.path}, step 40: too large"):
        measure(trainings, [RUN], tmp_path)


def test_runs_none_of_which_is_followed_have_tables_without_rows(trainings, tmp_path):
    measure(trainings, [LARGER], tmp_path)
    tables = read(tmp_path)
    assert len(tables.pop("bounds")) == len(SIGMAS)
    assert all(len(table) == 0 and list(table) == list(POINT) for table in tables.values())


@pytest.mark.parametrize("first", [1, 3], ids=["begins later", "holds nothing"])
def test_a_trajectory_without_the_initial_weights_is_refused(trainings, tmp_path, first):
    one = trainings.followed(RUN)
    later = replace(one, checkpoints=one.checkpoints[first:])
    with pytest.raises(InputError, match="no weights of step 0 were kept, which the bound starts from"):
        measure_runs([RUN], lambda run: later, SETTINGS, SIGMAS, tmp_path, along=bool, device=torch.device("cpu"))


def test_more_eigenvalues_than_the_covariance_can_have_are_refused(trainings, tmp_path):
    with pytest.raises(InputError, match=r"k is 40, but gradient_covariance of 40 examples .* at most 39"):
        measure(trainings, [RUN], tmp_path, settings=replace(SETTINGS, top=40))


def test_bad_settings_are_all_named_at_once():
    with pytest.raises(InputError, match=r"top: 0 given; .*samples: 1 given; .*confidence: 1 given; allowed: a number"):
        DynamicsSettings(top=0, samples=1, confidence=1)
    for name, value in {
        "exact_up_to": -1, "bound_probability": 0.5, "posterior_samples": 1, "batch_size": 0,
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=f"{name}: {value} given"):
            DynamicsSettings(**{name: value})


@pytest.mark.parametrize("sigmas", [(0.0,), (), (1.0, 1.0), (math.inf,), (math.nan,)], ids=str)
def test_priors_that_are_none_are_refused_before_any_run_is_read(tmp_path, sigmas):
    def never(run):
        raise AssertionError("a run was read")

    with pytest.raises(InputError, match=r"sigmas \[.*\] given; allowed: one or more different numbers above 0"):
        measure_runs([RUN], never, SETTINGS, sigmas, tmp_path, along=lambda run: True, device=torch.device("cpu"))
    assert not list(tmp_path.iterdir())


def test_the_script_follows_every_run_unless_told_a_number_that_one_has():
    names = runpy.run_path(str(Path(__file__).parents[3] / "workflow/scripts/sgd_dynamics.py"))
    runs = [RUN, LARGER, replace(RUN, examples_per_class=None)]

    def followed(*words):
        given = ["run", "--trajectories", "t", "--data", "d", "--output", "o", *words]
        along = names["followed_along"](names["parser"].parse_args(given), runs)
        return [along(run) for run in runs]

    assert followed() == [True, True, True]
    assert followed("--follow", "4") == [True, False, False]
    assert followed("--follow", "all") == [False, False, True]
    with pytest.raises(InputError, match="--follow 7: no run has so many examples a class; allowed: all, 4, 6; or"):
        followed("--follow", "7")
    assert names["parser"].get_default("sigmas") == SIGMAS_OF_THE_PACKAGE
