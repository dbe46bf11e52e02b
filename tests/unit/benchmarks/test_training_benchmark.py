"""The training benchmark on something tiny: both programs train alike, and what is written says how."""

import json

import pandas as pd
import pytest
import torch

from benchmarks import training
from benchmarks.training_loops import OurTraining, PlainLoop, Task, Way

TASK = Task("vgg11", 1 / 16, batches=2, batch=8)


def test_the_plain_loop_and_every_way_of_ours_are_timed_alike_and_written(tmp_path, capsys):
    words = "--networks vgg11 --widths 0.0625 --batch 8 --batches 2 --rounds 1 --workers 0"
    training.main([*words.split(), "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("training-cpu-")
    table = pd.read_csv(folder / "measurements.csv")
    values = table.set_index(["method", "quantity"])["value"]
    assert set(table["method"]) == {"plain loop, 0 workers", *training.CPU_WAYS}
    for method in training.CPU_WAYS:
        assert values[method, "images a CPU second"] > 0
        assert values[method, "relative difference"] <= values[method, "allowed difference"]
    of_run = json.loads((folder / "record.json").read_text())["vgg11-batch-w0.0625"]
    assert of_run["settings"]["batch"] == 8 and of_run["settings"]["clock"] == "cpu"
    printed = capsys.readouterr()
    assert "1 times" in printed.out and "ANOTHER TRAINING" not in printed.out


def test_the_plain_loop_and_ours_see_the_same_images_in_the_same_order_in_every_epoch():
    plain, ours = PlainLoop(TASK, 1), OurTraining(TASK, Way())
    losses = [(plain.epoch(), ours.epoch()) for _ in range(3)]
    for theirs, own in losses:
        assert own == pytest.approx(theirs, rel=1e-3)
    assert len({own for _, own in losses}) == 3


def test_measuring_leaves_the_processes_settings_as_they_were():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    PlainLoop(TASK, 0).epoch()
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32) == before
