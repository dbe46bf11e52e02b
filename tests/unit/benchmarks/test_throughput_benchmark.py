from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks.throughput import measured_calls, measured_passes, seconds_of
from benchmarks.throughput_passes import Case
from hessketch.planning.throughput import COLUMNS, find_device
from hessketch.planning.work import CALLS, OPERATIONS

CPU = torch.device("cpu")
RESULTS = Path(__file__).resolve().parents[3] / "benchmarks/results"


def test_every_kind_of_pass_is_measured_on_a_small_network():
    rows = list(measured_passes(Case("mlp", "none", 0.02, (1, 8, 8), 4), CPU))
    assert {row["kind"] for row in rows} == set(OPERATIONS)
    assert all(row["seconds"] > 0 and set(row) <= set(COLUMNS) for row in rows)
    assert {row["kind"]: row["vectors"] for row in rows}["clients"] == 20


def test_a_convolutional_network_is_measured_one_vector_at_a_time():
    rows = pd.DataFrame(measured_passes(Case("vgg11", "batch", 1 / 64, (1, 32, 32), 2), CPU))
    assert set(rows["family"]) == {"convolutions"} and set(rows["vectors"]) == {1}
    assert {"train", "gradient", "graph", "hessian"} <= set(rows["kind"])


def test_what_does_not_depend_on_sizes_is_measured_once():
    assert {row["kind"] for row in measured_calls()} == set(CALLS)


def test_a_long_call_is_made_once_and_the_least_of_short_ones_counts():
    made = []
    seconds_of(lambda: made.append(1), CPU)
    assert 3 <= len(made) <= 7


def test_the_recorded_measurements_can_be_planned_with():
    device = find_device("cpu-amd-epyc", RESULTS)
    assert device.starts["job"] == pytest.approx(4, abs=3.5) and device.memory > 1e9
    # A product with the Hessian takes some two gradients of a wide network, one with the GGN less.
    flops = {kind: device.passes["convolutions", kind][1] for kind in ("gradient", "hessian", "ggn")}
    assert flops["gradient"] < flops["ggn"] < flops["hessian"]
