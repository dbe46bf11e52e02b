"""What a job on eigenspaces needs, refused before anything is measured where it is not there."""

import math
import re
from collections import namedtuple
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from eigenspace_jobs import OTHER, QUICK, RUN, SETTINGS, STEPS, K, P, measure, of, read

from hessketch.data.examples import Examples
from hessketch.eigenspaces import measuring, room
from hessketch.eigenspaces.eigenpairs import exact_memory
from hessketch.eigenspaces.settings import EigenspaceSettings
from hessketch.eigenspaces.subjects import first_of_each_class, points_at_steps, points_of_rounds
from hessketch.eigenspaces.tables import TABLES
from hessketch.errors import InputError
from hessketch.progress import Progress
from hessketch.runs import IDENTITY
from hessketch.trajectories import read_trajectory


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
