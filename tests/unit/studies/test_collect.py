"""What the jobs of a profile wrote becomes a few long tables."""

import pandas as pd
import pytest

from hessketch.config import runs_of
from hessketch.curvature.checkpoint_spectra import CURVATURE, SPECTRUM, empty_tables
from hessketch.federation_config import federated_runs_of
from hessketch.records import write_record, write_table
from hessketch.runs import IDENTITY
from hessketch.studies.collect import (
    collect_checkpoint_spectra,
    collect_federated_runs,
    collect_rounds,
    collect_runs,
    collect_spectra,
)
from hessketch.studies.sharper_sketching import TRAINER, mark_selected
from hessketch.trainers import trainer_columns

CONFIG = {
    "seeds": [0],
    "losses": ["cross_entropy"],
    "networks": [{"name": "mlp", "norm": "none", "width": 1}],
    "datasets": {"digits": {"label_noise": [0], "examples_per_class": [3, 5], "learning_rates": [0.1, 0.2]}},
    "spectrum": {"splits": ["train", "test"]},
}


@pytest.fixture
def results(tmp_path):
    for run in runs_of(CONFIG):
        diverged = run.learning_rate == 0.2 and run.examples_per_class == 5
        write_record(
            {
                "run": run.path, "status": "diverged" if diverged else "finished", "diverged_at": None, "epochs": 2,
                "n": 30, "p": 9, "classes": 10, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0,
                "test_accuracy": run.learning_rate, "wall_seconds": 1.5, "peak_memory_mib": 9.0,
            },
            tmp_path / f"runs/{run.path}/record.json",
        )  # fmt: skip
        if run.learning_rate == 0.1:
            write_record({"run": run.path}, tmp_path / f"selected/{run.cell.path}/selection.json")
            for split in ("train", "test"):
                folder = tmp_path / f"spectra/{run.cell.path}/{split}"
                for table in ("density", "ritz", "bounds", "sums"):
                    write_table(
                        pd.DataFrame({**run.identity(), "split": split, "x": [1.0, 2.0]}), folder / f"{table}.parquet"
                    )
                empty = pd.DataFrame({"rank": pd.Series(dtype="int64")})
                write_table(empty, folder / "eigenvalues.parquet")
    return tmp_path


def test_every_rate_of_every_run_is_a_row_and_one_of_each_cell_is_selected(results):
    runs = collect_runs(CONFIG, results)
    assert len(runs) == 4
    assert runs.loc[runs["selected"], "learning_rate"].tolist() == [0.1, 0.1]
    assert runs.groupby("examples_per_class")["selected"].sum().tolist() == [1, 1]


def test_a_diverged_run_has_no_accuracy_but_its_cost(results):
    runs = collect_runs(CONFIG, results).set_index(["examples_per_class", "learning_rate"])
    diverged = runs.loc[(5, 0.2)]
    assert pd.isna(diverged["test_accuracy"]) and pd.isna(diverged["train_loss"])
    assert diverged["wall_seconds"] == 1.5
    assert runs.loc[(3, 0.2), "test_accuracy"] == 0.2


def test_spectra_of_all_cells_and_splits_stand_in_one_table_each(results):
    tables = collect_spectra(CONFIG, results)
    assert set(tables) == {"density", "ritz", "eigenvalues", "bounds", "sums"}
    assert len(tables["ritz"]) == 2 * 2 * 2
    assert len(tables["eigenvalues"]) == 0 and tables["eigenvalues"]["rank"].dtype == "int64"


FEDERATED = {
    "federation": {
        "seeds": [0, 1],
        "losses": ["cross_entropy"],
        "networks": [{"name": "mlp", "norm": "none", "width": 1}],
        "datasets": {"digits": {"label_noise": 0, "examples_per_class": "all"}},
        "methods": ["uncompressed", "top_r_ef"],
        "reductions": [2.5],
        "learning_rates": [0.1, 0.2],
        "spectra_of": ["top_r_ef-x2.5"],
    }
}
ROUND = {
    "round": 1, "server_rate": 1.0, "train_loss": 2.0, "train_accuracy": 0.1, "test_loss": 2.0, "test_accuracy": 0.1,
    "update_norm": 1.0, "lift_error": 0.5, "lift_error_theory": 0.6, "error_norm": 0.0, "upload_bytes": 8.0,
    "download_bytes": 8.0, "participants": 4, "seconds": 0.1,
}  # fmt: skip


@pytest.fixture
def federated(tmp_path):
    """Two rates and two seeds of two trainers; top_r at the larger rate diverged in its first round for one seed."""
    for run in federated_runs_of(FEDERATED):
        diverged = run.trainer == "top_r_ef-x2.5" and run.learning_rate == 0.2 and run.seed == 1
        folder = tmp_path / f"runs/{run.path}"
        record = {
            "run": run.path, "status": "diverged" if diverged else "finished", "rounds": 0 if diverged else 2,
            "diverged_at": "round 1" if diverged else None, "n": 1297, "p": 9, "classes": 10, "clients": 4,
            "upload_numbers": 2, "upload_bytes": 16.0, "download_bytes": 16.0, "reduction_numbers": 4.5,
            "reduction_bytes": 2.25, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0,
            "test_accuracy": run.learning_rate + run.seed / 100, "wall_seconds": 1.5, "peak_memory_mib": 9.0,
        }  # fmt: skip
        write_record(record, folder / "record.json")
        rows = [] if diverged else [ROUND, {**ROUND, "round": 2}]
        write_table(pd.DataFrame(rows, columns=["round"] if diverged else list(ROUND)), folder / "rounds.parquet")
    return tmp_path


def test_federated_runs_stand_with_their_trainer_and_what_they_sent(federated):
    runs = mark_selected(collect_federated_runs(FEDERATED, federated))
    assert list(runs)[: len(IDENTITY) + 3] == [*IDENTITY, *TRAINER] and len(runs) == 2 * 2 * 2
    assert runs.loc[runs["method"] == "uncompressed", "reduction"].isna().all()
    assert set(runs.loc[runs["method"] == "top_r", "reduction"]) == {2.5}
    assert runs.groupby("method")["error_feedback"].first().to_dict() == {"top_r": True, "uncompressed": False}
    (diverged,) = runs[runs["status"] == "diverged"].to_dict("records")
    assert diverged["diverged_at"] == "round 1" and diverged["rounds"] == 0 and diverged["upload_bytes"] == 16
    assert pd.isna(diverged["test_accuracy"]) and not diverged["selected"]
    chosen = runs[runs["selected"]].groupby("method")["learning_rate"].unique().map(list).to_dict()
    assert chosen == {"uncompressed": [0.2], "top_r": [0.1]}


def test_rounds_of_the_selected_runs_are_named_by_run_and_trainer(federated):
    runs = mark_selected(collect_federated_runs(FEDERATED, federated))
    rounds = collect_rounds(FEDERATED, federated, runs["selected"])
    assert list(rounds) == [*IDENTITY, *TRAINER, *ROUND]
    assert len(rounds) == 2 * 2 * 2 and rounds["round"].tolist() == [1, 2] * 4
    assert set(rounds.loc[rounds["method"] == "uncompressed", "learning_rate"]) == {0.2}


def test_rounds_of_runs_that_all_diverged_at_once_have_no_row_and_every_column(federated):
    runs = collect_federated_runs(FEDERATED, federated)
    none = collect_rounds(FEDERATED, federated, runs["status"] == "diverged")
    some = collect_rounds(FEDERATED, federated, runs["status"] == "finished")
    assert len(none) == 0 and list(none) == list(some)
    assert none[list(ROUND)].dtypes.to_dict() == some[list(ROUND)].dtypes.to_dict()


def write_spectra(run, folder, rows):
    for name, table in empty_tables({**run.identity(), **trainer_columns(run)}).items():
        filled = pd.DataFrame({column: [0] * rows for column in table}).astype({"split": str, "operator": str})
        write_table(filled.assign(dataset=run.dataset, seed=run.seed) if rows else table, folder / f"{name}.parquet")


def test_checkpoint_spectra_of_the_chosen_trainers_stand_in_one_table_each(federated):
    runs = [run for run in federated_runs_of(FEDERATED) if run.trainer == "top_r_ef-x2.5"]
    for run in runs:
        write_spectra(run, federated / f"checkpoint_spectra/{run.cell.path}", rows=2 if run.seed else 0)
    tables = collect_checkpoint_spectra(FEDERATED, federated)
    assert set(tables) == {"curvature", "density", "eigenvalues"}
    assert tables["curvature"]["seed"].tolist() == [1, 1]
    assert list(tables["curvature"]) == [*IDENTITY, *TRAINER, *SPECTRUM, *CURVATURE]


def test_without_trainers_to_measure_the_tables_are_empty_and_have_their_columns(federated):
    tables = collect_checkpoint_spectra({"federation": {**FEDERATED["federation"], "spectra_of": []}}, federated)
    assert [len(table) for table in tables.values()] == [0, 0, 0]
    assert list(tables["curvature"]) == [*IDENTITY, *TRAINER, *SPECTRUM, *CURVATURE]
    assert {"eigenvalue", "density", "target_loss"} <= set(tables["density"])
