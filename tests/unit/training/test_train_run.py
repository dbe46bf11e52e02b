"""One training from a run's identity to its files."""

import math
from dataclasses import replace

import pytest
import torch

from hessketch.data.examples import load_examples
from hessketch.data.of_run import subset_seed
from hessketch.data.prepared import prepare_dataset
from hessketch.records import read_record, read_table, read_tensors
from hessketch.runs import Run
from hessketch.training.job import train_run
from hessketch.training.settings import TrainingSettings

RUN = Run("digits", 0.0, 4, "mlp", "batch", 0.05, "cross_entropy", "sgd", 0.05, 0)
SETTINGS = TrainingSettings(learning_rate=0.05, epochs=6, batch_size=8)


@pytest.fixture(scope="module")
def splits():
    prepared = prepare_dataset("digits", "absent")
    return [load_examples(prepared, "digits", split, 4, 0.0, subset_seed(RUN)) for split in ("train", "test")]


def trained(splits, folder, settings=SETTINGS, **options):
    return train_run(RUN, *splits, settings, folder, device=torch.device("cpu"), **options)


def test_the_same_run_twice_gives_the_same_weights_whatever_the_global_generator(splits, tmp_path):
    torch.manual_seed(1)
    trained(splits, tmp_path / "a")
    torch.manual_seed(2)
    trained(splits, tmp_path / "b")
    first, second = (read_tensors(tmp_path / name / "model.safetensors")[0] for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_record_says_how_to_repeat_the_run(splits, tmp_path):
    record = trained(splits, tmp_path)
    assert record == read_record(tmp_path / "record.json")
    assert Run.from_path(record["run"]) == RUN
    assert record["settings"]["momentum"] == 0.9 and record["n"] == 40
    assert set(record["seeds"]) == {"subset", "initialisation", "batch order"}
    assert record["environment"]["device"] == "cpu"
    history = read_table(tmp_path / "history.parquet")
    assert len(history) == 6
    assert history["test_accuracy"].iloc[-1] == record["test_accuracy"]


def test_checkpoints_are_kept_at_the_chosen_epochs(splits, tmp_path):
    trained(splits, tmp_path, checkpoint_epochs=[2, 6])
    assert {p.name for p in tmp_path.glob("epoch*")} == {"epoch2.safetensors", "epoch6.safetensors"}
    last, final = (read_tensors(tmp_path / f"{name}.safetensors")[0] for name in ("epoch6", "model"))
    assert all(torch.equal(last[name], final[name]) for name in final)


def test_a_diverged_run_is_a_result_with_finite_weights_and_its_step(splits, tmp_path):
    settings = TrainingSettings(learning_rate=1e30, epochs=6, batch_size=8)
    record = trained(splits, tmp_path, settings, checkpoint_epochs=[5])
    assert record["status"] == "diverged"
    assert record["diverged_at"].startswith("epoch 1, step ")
    tensors, metadata = read_tensors(tmp_path / "model.safetensors")
    assert metadata["status"] == "diverged"
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert (tmp_path / "epoch5.safetensors").exists()
    assert not (tmp_path / "resume.safetensors").exists()
    assert math.isfinite(record["train_loss"])


def test_subsets_of_one_seed_are_the_same_for_all_networks_and_rates():
    other = Run("digits", 0.0, 20, "vgg11", "none", 1.0, "mean_squared_error", "sgd", 0.1, 0)
    assert subset_seed(RUN) == subset_seed(other) != subset_seed(replace(other, seed=1))
