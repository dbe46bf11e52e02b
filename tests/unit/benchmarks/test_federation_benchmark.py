"""The benchmark program on something tiny; Flower's simulation runs only where it is installed."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch

from benchmarks import federation, flower_round, round_costs, sketch_costs
from benchmarks.client_rounds import Task, small_cnn
from benchmarks.csvec import CSVec
from benchmarks.flower_round import FlowerSimulation, cpu_seconds
from hessketch.progress import Progress
from hessketch.records import read_record

_NOWHERE = ["--flower-python", "/bin/false"]


def _values(table: pd.DataFrame, quantity: str) -> pd.Series:
    return table[table["quantity"] == quantity].set_index(["problem", "method"])["value"]


def test_sketches_are_measured_compared_and_written_with_their_provenance(tmp_path, capsys):
    words = "--parts sketch --dimension 200000 --rounds 1"
    federation.main([*words.split(), "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("federation-cpu-")
    table = pd.read_csv(folder / "measurements.csv")
    assert set(table["method"]) == {sketch_costs.PEER, *sketch_costs.OURS}
    errors = _values(table, "error over theory")
    assert len(errors) == 6 and all(map(sketch_costs.right, errors)), errors
    for what in ("sketch", "lift", "draw hashes", "together"):
        assert (_values(table, f"{what} seconds") >= 0).all() and len(_values(table, f"{what} seconds")) == 6
    stored = _values(table, "stored MiB").xs(sketch_costs.PEER, level="method")
    assert stored.tolist() == pytest.approx([12 * 5 * 200_000 / 2**20, 12 * 200_000 / 2**20])
    (of_run,) = read_record(folder / "record.json").values()
    assert of_run["settings"]["dimension"] == 200_000 and set(of_run["peers"]) == {"flwr", "ray"}
    assert "of memory" in capsys.readouterr().out


def test_rounds_without_flower_agree_are_timed_and_kept_beside_other_parts(tmp_path, capsys):
    federation.main(["--parts", "sketch", "--dimension", "20000", "--rounds", "1", "--output", str(tmp_path)])
    words = "--parts rounds --clients 2 --rounds 1 --networks mlp cnn"
    federation.main([*words.split(), *_NOWHERE, "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    table = pd.read_csv(folder / "measurements.csv")
    assert set(table["part"]) == {"sketch", "rounds"}
    differences = _values(table, "relative difference")
    assert len(differences) == 6 and (differences <= round_costs.AGREEMENT).all(), differences
    assert (_values(table, "rounds a second") > 0).all()
    printed = capsys.readouterr()
    assert "Flower is not installed and left out" in printed.err
    assert "Rounds of sketched federation" in printed.out and "times MISSED" not in printed.out.split("## Rounds")[-1]


@pytest.mark.slow
def test_flowers_rounds_are_timed_and_give_the_same_weights():
    versions = flower_round.versions(sys.executable)
    if versions is None:
        pytest.skip("Flower is not installed: pip install -r benchmarks/requirements.txt")
    settings = round_costs.Settings(rounds=1, workers=1, flower=sys.executable)
    table = pd.DataFrame(round_costs.measure(Task("mlp", clients=2), settings, Progress("test")))
    assert round_costs.FLOWER in set(table["method"])
    differences = _values(table, "relative difference")
    assert len(differences) == 4 and (differences <= round_costs.AGREEMENT).all(), differences
    assert (_values(table, "times faster") > 0).all()


def test_a_simulation_that_stops_says_why():
    with FlowerSimulation(Task("mlp", clients=2), 1, 1, sys.executable) as simulation:
        simulation._process.kill()
        simulation._process.wait()
        with pytest.raises(RuntimeError, match="Flower's simulation stopped"):
            simulation.round()


def test_verdicts_of_targets_follow_the_measurements():
    def row(part, method, **values):
        return [(part, "some", method, quantity, value) for quantity, value in values.items()]

    def sketch(method, faster, share):
        seconds = {f"{what} seconds": 1e-3 for what in ("draw hashes", "sketch", "lift", "together")}
        quartiles = {f"times faster{end}": faster for end in (", lower quartile", "", ", upper quartile")}
        others = {"target, times faster": 5.0, "share of stored": share, "stored MiB": 1.0, "error over theory": 1.3}
        return row("sketch", method, **seconds, **quartiles, **others)

    def rounds(method, faster, difference):
        quartiles = {f"times faster{end}": faster for end in (", lower quartile", "", ", upper quartile")}
        return row("rounds", method, **{"rounds a second": 1.0, "relative difference": difference}, **quartiles)

    rows = sketch("hessketch, hash", 4.9, 0.05) + sketch("hessketch, shift", 5.1, 0.2)
    rows += rounds(round_costs.OURS, 4.9, 1e-2) + rounds(round_costs.FLOWER, 1.0, 1e-7)
    text = federation.report(pd.DataFrame(rows, columns=federation.COLUMNS))
    assert "5 times MISSED (4.9); 0.1 of memory met (0.050)" in text
    assert "5 times met (5.1); 0.1 of memory MISSED (0.200)" in text
    assert "| 5 times MISSED (4.9) |" in text
    assert "1.30, WRONG" in text and "1e-02, ANOTHER ROUND" in text


def test_csvecs_way_is_the_sketch_of_its_own_tables():
    sketch = CSVec(300, 3, 40, seed=1)
    x = torch.randn(300, generator=torch.Generator().manual_seed(0))
    dense = torch.zeros(3, 40, 300)
    for row in range(3):
        dense[row, sketch.buckets[row], torch.arange(300)] = sketch.signs[row]
    torch.testing.assert_close(sketch.apply(x), dense @ x)
    by_row = (dense.transpose(1, 2) @ (dense @ x)[:, :, None]).squeeze(2)
    torch.testing.assert_close(sketch.lift(dense @ x), by_row.median(0).values)
    assert set(sketch.signs.unique().tolist()) == {-1.0, 1.0} and sketch.buckets.max() < 40


def test_the_small_networks_have_the_sizes_that_are_told():
    assert sum(p.numel() for p in small_cnn(10).parameters()) == 9098
    assert sum(p.numel() for p in Task("mlp").model().parameters()) == 16842


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts by /proc")
def test_cpu_time_counts_descendants():
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        assert cpu_seconds(process.pid) >= 0.29
        process.communicate("\n")
    assert cpu_seconds(os.getpid()) > 0
