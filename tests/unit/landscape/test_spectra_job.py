"""From trajectories to tables of exact spectra: what every row starts with, what a kill loses, what is refused."""

import math
import runpy
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import torch

from hessketch.checkpoints import Architecture
from hessketch.data.examples import Examples
from hessketch.data.followed_runs import Followed
from hessketch.errors import InputError, NotFiniteError
from hessketch.landscape import spectra_job
from hessketch.landscape.exact_spectra import OPERATORS, exact_spectra, spectra_tables
from hessketch.landscape.spectra_job import TABLES, SpectraSettings, parameters_of, spectra_of_runs
from hessketch.networks.registry import network_of
from hessketch.records import read_record, read_table, write_record
from hessketch.runs import IDENTITY, Run
from hessketch.trajectories import write_trajectory

RUN = Run("digits-4x4", 0.0, 3, "mlp", "none", 0.012, "cross_entropy", "sgd-b10", 0.02, 0)
OTHER = replace(RUN, trainer="sgd-full", seed=1)
ARCHITECTURE = Architecture("mlp", (1, 4, 4), 10, 0.012, "none")
P = 16 * 3 + 3 + 3 * 3 + 3 + 3 * 10 + 10
POINT = [
    *IDENTITY, "batch_size", "kind", "time", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "n", "p",
    "classes",
]  # fmt: skip
OWN = {"spectra": ["operator", "rank", "eigenvalue"], "alignments": ["operator", "k", "overlap", "chance"]}
CPU = torch.device("cpu")


def checkpoint(step: int, seed: int, broken: bool = False):
    state = network_of(ARCHITECTURE, seed).state_dict()
    if broken:
        state = {name: tensor * math.nan for name, tensor in state.items()}
    losses = {"train_loss": 2.0 - step, "train_accuracy": 0.5, "test_loss": 3.0, "test_accuracy": 0.25}
    return {"step": step, "epoch": step / 3, **losses}, state


def followed(run: Run, finished: bool = True, broken: bool = False) -> Followed:
    generator = torch.Generator().manual_seed(run.seed)
    train = Examples(torch.randn(30, 1, 4, 4, generator=generator), torch.arange(30) % 10, 10)
    checkpoints = [checkpoint(0, run.seed), checkpoint(5, run.seed + 10, broken)]
    return Followed(run, ARCHITECTURE, checkpoints, finished, train, test=train)


def measure(runs, output, settings=None, of=followed, **options):
    return spectra_of_runs(runs, of, settings or SpectraSettings(), output, device=CPU, **options)


def read(output) -> dict[str, pandas.DataFrame]:
    assert {path.name for path in output.iterdir()} == {*(f"{name}.parquet" for name in TABLES), "record.json"}
    return {name: read_table(output / f"{name}.parquet") for name in TABLES}


def assert_same(found, expected):
    for name in TABLES:
        pandas.testing.assert_frame_equal(found[name], expected[name], check_exact=True)


def test_tables_hold_the_spectra_of_each_checkpoint_after_its_point(tmp_path):
    record = measure([RUN, OTHER], tmp_path)
    tables = read(tmp_path)
    for name, table in tables.items():
        assert list(table) == [*POINT, *OWN[name]]
        assert set(table["kind"]) == {"step"} and set(table["p"]) == {P} and set(table["n"]) == {30}
        assert table.groupby("seed")["batch_size"].unique().map(list).to_dict() == {0: [10], 1: [30]}
        for (seed, time), rows in table.groupby(["seed", "time"]):
            facts, state = followed(OTHER if seed else RUN).checkpoints[time // 5]
            assert set(rows["train_loss"]) == {facts["train_loss"]} and set(rows["test_accuracy"]) == {0.25}
            model = network_of(ARCHITECTURE)
            model.load_state_dict(state)
            one = followed(OTHER if seed else RUN).train
            expected = spectra_tables(exact_spectra(model.eval(), "cross_entropy", one), 11)[name]
            pandas.testing.assert_frame_equal(rows[OWN[name]].reset_index(drop=True), expected, check_exact=True)
    assert len(tables["spectra"]) == 4 * 3 * P and len(tables["alignments"]) == 4 * 2 * 11
    assert tables["spectra"]["operator"].unique().tolist() == list(OPERATORS)
    assert [(one["run"], one["step"]) for one in record["measured"]] == [
        (run.path, step) for run in (RUN, OTHER) for step in (0, 5)
    ]
    assert all(one["left_out"] is None and one["seconds"] > 0 for one in record["measured"])


class Killed(Exception):
    pass


def dying(calls: list, after: float):
    def measured(*arguments, **options):
        calls.append(arguments)
        if len(calls) > after:
            raise Killed
        return exact_spectra(*arguments, **options)

    return measured


def test_a_killed_job_loses_the_checkpoint_that_it_was_in(tmp_path, monkeypatch):
    measure([RUN, OTHER], tmp_path / "whole")
    calls = []
    monkeypatch.setattr(spectra_job, "exact_spectra", dying([], 3))
    with pytest.raises(Killed):
        measure([RUN, OTHER], tmp_path / "killed")
    assert not list((tmp_path / "killed").glob("*.parquet"))
    monkeypatch.setattr(spectra_job, "exact_spectra", dying(calls, math.inf))
    measure([RUN, OTHER], tmp_path / "killed")
    assert len(calls) == 1
    assert_same(read(tmp_path / "killed"), read(tmp_path / "whole"))


def test_what_was_measured_with_other_settings_weights_or_data_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(spectra_job, "exact_spectra", dying([], 1))
    with pytest.raises(Killed):
        measure([RUN], tmp_path / "killed")
    moved = replace(followed(RUN), checkpoints=[checkpoint(0, 77), checkpoint(5, 78)])
    others = replace(followed(RUN), train=followed(OTHER).train)
    tasks = ({"settings": SpectraSettings(top=3)}, {"of": lambda run: moved}, {"of": lambda run: others})
    for changes in tasks:
        calls = []
        monkeypatch.setattr(spectra_job, "exact_spectra", dying(calls, 1))
        with pytest.raises(Killed):
            measure([RUN], tmp_path / "killed", **changes)
        assert len(calls) == 2


def test_what_a_diverged_run_does_not_allow_is_left_out_with_the_reason(tmp_path):
    one = followed(RUN, finished=False, broken=True)
    record = measure([RUN, OTHER], tmp_path, of=lambda run: one if run == RUN else followed(run))
    found = read(tmp_path)["spectra"].groupby("seed")["time"].unique().map(list).to_dict()
    assert found == {0: [0], 1: [0, 5]}
    assert [one["left_out"] is None for one in record["measured"]] == [True, False, True, True]
    assert "NaN" in record["measured"][1]["left_out"]


def test_tables_of_which_nothing_could_be_measured_have_the_columns_of_a_point(tmp_path):
    one = followed(RUN, finished=False, broken=True)
    measure([RUN], tmp_path, of=lambda run: replace(one, checkpoints=one.checkpoints[1:]))
    assert all(len(table) == 0 and list(table) == POINT for table in read(tmp_path).values())


def test_a_finished_run_with_nan_is_an_error_that_names_run_and_step(tmp_path):
    with pytest.raises(NotFiniteError, match=f"{RUN.path}, step 5: .*NaN"):
        measure([RUN], tmp_path, of=lambda run: followed(run, broken=True))


@pytest.mark.parametrize(
    "settings, memory, message",
    [
        ({"max_parameters": P - 1}, None, f"{P} parameters asked, allowed are {P - 1}.*narrower network"),
        ({}, 2**20, "parameters would fit"),
        ({"top": P + 1}, None, f"{P + 1} leading eigenvectors asked of {P} parameters"),
    ],
)
def test_what_is_too_large_is_refused_before_anything_is_measured(tmp_path, monkeypatch, settings, memory, message):
    monkeypatch.setattr(spectra_job, "exact_spectra", dying([], 0))
    assert parameters_of(ARCHITECTURE) == P
    with pytest.raises(InputError, match=f"^{RUN.path}: .*{message}"):
        measure([RUN], tmp_path, SpectraSettings(**settings), memory=memory)
    assert not list(tmp_path.iterdir())


def test_the_second_of_two_runs_is_looked_at_before_the_first_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(spectra_job, "exact_spectra", dying([], 0))
    wider = replace(ARCHITECTURE, width=0.02)
    of = lambda run: replace(followed(run), architecture=wider) if run == OTHER else followed(run)  # noqa: E731
    with pytest.raises(InputError, match=rf"^{OTHER.path}: .*{parameters_of(wider)} parameters asked, allowed are {P}"):
        measure([RUN, OTHER], tmp_path, SpectraSettings(max_parameters=P), of=of)


def test_a_run_without_weights_and_bad_settings_are_refused(tmp_path):
    with pytest.raises(InputError, match=f"{RUN.path}: no weights were kept"):
        measure([RUN], tmp_path, of=lambda run: replace(followed(run), checkpoints=[]))
    with pytest.raises(InputError, match=r"top: -1 given; .*max_parameters: 0 given"):
        SpectraSettings(top=-1, max_parameters=0)


def test_the_script_measures_the_trajectories_that_it_is_given(tmp_path, monkeypatch):
    from hessketch.data import followed_runs, prepared

    run = replace(RUN, examples_per_class=3)
    one = followed(run)
    folder = tmp_path / "trajectories" / run.path
    write_trajectory(folder / "trajectory.safetensors", one.architecture, one.checkpoints)
    write_record({"status": "finished"}, folder / "record.json")
    monkeypatch.setattr(prepared, "read_prepared", lambda path: path)
    monkeypatch.setattr(followed_runs, "examples_of_run", lambda run, data, split, per_class: one.train)
    script = str(Path(__file__).parents[3] / "workflow/scripts/exact_spectra.py")
    words = ["--trajectories", tmp_path / "trajectories", "--data", "x", "--output", tmp_path / "out", "--top", "2"]
    names = runpy.run_path(script)
    arguments = names["parser"].parse_args([run.path, *map(str, words), "--device", "cpu", "--memory-gib", "1"])
    names["measure"](arguments, None)
    measure([run], tmp_path / "expected", SpectraSettings(top=2))
    assert_same(read(tmp_path / "out"), read(tmp_path / "expected"))
    assert read_record(tmp_path / "out" / "record.json")["settings"] == {"top": 2, "max_parameters": 20_000}
