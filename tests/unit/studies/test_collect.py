"""What the jobs of a profile wrote becomes a few long tables."""

import pandas as pd
import pytest

from hessketch.config import runs_of
from hessketch.records import write_record, write_table
from hessketch.studies.collect import collect_runs, collect_spectra

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
