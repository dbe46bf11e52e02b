"""A federation over two gloo processes against one."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_federations import dimension, examples, method, parts, simulation
from torch import distributed, multiprocessing

from hessketch.curvature.losses import mean_squared_error
from hessketch.errors import NotFiniteError
from hessketch.federated.job import federate_runs
from hessketch.federated.settings import FederatedSettings
from hessketch.records import read_record, read_table, read_tensors
from hessketch.runs import Run

SEVEN = (3, 8, 5, 2, 6, 4, 7)  # an odd number of clients over two processes
ROUNDS = 5
LIMIT = 120.0  # seconds, of all rounds over the processes: more is a hang

# Methods that choose the largest entries in float64: a rounding error could change the choice of nearly equal ones.
CASES: dict[str, dict[str, Any]] = {
    "uncompressed": {"of": "uncompressed", "dtype": torch.float32},
    "uncompressed batch": {"of": "uncompressed", "dtype": torch.float32, "kind": "batch"},
    "count_sketch some": {"of": "count_sketch", "dtype": torch.float32, "participation": 0.5},
    "count_sketch_ef": {"of": "count_sketch_ef", "dtype": torch.float32},
    "count_sketch_ef some": {"of": "count_sketch_ef", "dtype": torch.float32, "participation": 0.5},
    "top_r_ef": {"of": "top_r_ef"},
    "top_r_ef batch": {"of": "top_r_ef", "kind": "batch", "participation": 0.6, "local_batch_size": 2},
    "fetch_sgd": {"of": "fetch_sgd"},
    "fetch_sgd_ef": {"of": "fetch_sgd_ef"},
    "one participant": {"of": "top_r_ef", "participation": 0.01},
    "one sketched participant": {"of": "count_sketch_ef", "participation": 0.01},
}


def small_steps(outputs, targets):
    """A loss whose gradient is NaN, though it is finite, at examples of class 2."""
    spoilt = torch.where(targets == 2, 0 * outputs[:, 0], 1 + outputs[:, 0].square())
    return mean_squared_error(outputs, targets) + 0 * spoilt.abs().sqrt()


DIVERGING: dict[str, dict[str, Any]] = {
    "uncompressed": {"of": "uncompressed", "learning_rate": 1e6},
    "count_sketch_ef": {"of": "count_sketch_ef", "learning_rate": 1e30, "dtype": torch.float32},
    "top_r_ef": {"of": "top_r_ef", "learning_rate": 1e6},
    "top_r_ef some": {"of": "top_r_ef", "learning_rate": 1e6, "participation": 0.3},
    # Only one of the two processes sees NaN, and must tell the other.
    "top_r one process": {"of": "top_r", "loss": small_steps, "spoilt": True},
}


def federation(case: dict[str, Any], group=None):
    options = dict(case)
    loss = options.pop("loss", mean_squared_error)
    data = examples(sum(SEVEN), dtype=options.get("dtype", torch.float64))
    if options.pop("spoilt", False):
        data.targets[:] = torch.arange(sum(SEVEN)) % 2
        data.targets[parts(SEVEN)[3]] = 2
    name, kind = options.pop("of"), options.get("kind", "mlp")
    return simulation(method(name, dimension(kind)), sizes=SEVEN, data=data, loss=loss, group=group, **options)


def collectives() -> list[tuple[str, int]]:
    """Filled with the names and sizes of what the processes exchange."""
    seen: list[tuple[str, int]] = []

    def count(name: str) -> None:
        original = getattr(distributed, name)

        def counted(tensor, *args, **kwargs):
            seen.append((name, tensor.numel()))
            return original(tensor, *args, **kwargs)

        setattr(distributed, name, counted)

    for name in ("all_reduce", "broadcast", "all_gather_into_tensor", "reduce"):
        count(name)
    return seen


RUNS = [
    Run("digits", 0.0, 8, "mlp", "batch", 0.02, "cross_entropy", "count_sketch_ef-x3", 0.3, 0),
    Run("digits", 0.0, 8, "mlp", "batch", 0.02, "mean_squared_error", "uncompressed", 1e6, 0),
    Run("digits", 0.0, 8, "mlp", "none", 0.02, "cross_entropy", "uncompressed", 0.1, 1),
]


def trained(folder, group=None):
    return federate_runs(
        RUNS,
        lambda _: (examples(33, 1, torch.float32), examples(21, 2, torch.float32)),
        FederatedSettings(clients=5, rounds=6, local_steps=2),
        lambda run: folder / f"{run.trainer}-{run.seed}",
        device=torch.device("cpu"),
        checkpoint_rounds=[2],
        save_every_seconds=0,
        group=group,
    )


def one_of_two(rank: int, folder: str) -> None:
    """Its share of every case and of RUNS; saves weights, rows and what was exchanged."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    seen, group, found = collectives(), distributed.group.WORLD, {}
    for name, case in CASES.items():
        sim = federation(case, group)
        seen.clear()
        rows = [sim.round() for _ in range(ROUNDS)]
        found[name] = {"weights": sim.weights(), "rows": rows, "seen": list(seen)}
    stopped = {}
    for name, case in DIVERGING.items():
        sim = federation(case, group)
        try:
            for _ in range(50):
                sim.round()
        except NotFiniteError as error:
            stopped[name] = {"why": str(error), "step": sim.step, "weights": sim.weights()}
    trained(Path(folder) / "two", group)
    torch.save({"found": found, "stopped": stopped}, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes wrote; fails, and ends them, where they hang."""
    folder = tmp_path_factory.mktemp("processes")
    context = multiprocessing.spawn(one_of_two, (str(folder),), nprocs=2, join=False)
    deadline = time.monotonic() + LIMIT
    while not context.join(timeout=1.0):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            pytest.fail("two processes hang")
    return folder


@pytest.fixture(scope="module")
def ranks(folder) -> list[dict]:
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_two_processes_give_the_weights_and_rows_of_one_to_1e_6(ranks):
    for name, case in CASES.items():
        alone = federation(case)
        rows = [alone.round() for _ in range(ROUNDS)]
        found = [rank["found"][name] for rank in ranks]
        for key, tensor in alone.weights().items():
            assert all(torch.equal(other["weights"][key], found[0]["weights"][key]) for other in found), (name, key)
            scale = max(1.0, float(tensor.abs().max()))
            torch.testing.assert_close(found[0]["weights"][key], tensor, rtol=0, atol=1e-6 * scale, msg=f"{name} {key}")
        for row, others in zip(rows, zip(*(rank["rows"] for rank in found), strict=True), strict=True):
            for other in others:
                for column in ("round", "server_rate", "upload_bytes", "download_bytes", "participants"):
                    assert other[column] == row[column], (name, column)
                for column in ("train_loss", "train_accuracy"):
                    assert other[column] == pytest.approx(row[column], rel=1e-5), (name, column)


def test_one_all_reduce_a_round_of_the_payload_the_buffers_and_six_numbers(ranks):
    for name, case in CASES.items():
        alone = federation(case)
        p = len(alone.theta)
        payload = {"count_sketch": 2 * (p // 6), "fetch_sgd": 3 * (p // 9)}.get(case["of"].removesuffix("_ef"), p)
        length = payload + sum(buffer.numel() for buffer in alone.buffers.values()) + 6
        for rank in ranks:
            assert rank["found"][name]["seen"] == [("all_reduce", length)] * ROUNDS, name


def test_a_divergence_stops_all_processes_at_the_same_round_with_the_same_weights(ranks):
    for name, case in DIVERGING.items():
        alone = federation(case)
        with pytest.raises(NotFiniteError) as stopped:
            for _ in range(50):
                alone.round()
        for rank in ranks:
            found = rank["stopped"][name]
            assert found["step"] == alone.step and str(stopped.value).startswith(f"round {alone.step + 1}: "), name
            assert found["why"].split(": ")[0] == str(stopped.value).split(": ")[0], name
            assert all(torch.isfinite(tensor).all() for tensor in found["weights"].values()), name
    assert all(rank["stopped"]["top_r one process"]["why"] == "round 1: updates" for rank in ranks)


def test_runs_over_two_processes_one_of_them_diverging_write_once_what_one_writes(folder, tmp_path):
    expected = trained(tmp_path / "one")
    for run, record in zip(RUNS, expected, strict=True):
        name = f"{run.trainer}-{run.seed}"
        one, two = tmp_path / "one" / name, folder / "two" / name
        assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
        found = read_record(two / "record.json")
        assert found["processes"] == 2
        assert [found[key] for key in ("status", "rounds", "upload_bytes")] == [
            record[key] for key in ("status", "rounds", "upload_bytes")
        ]
        rounds, others = read_table(one / "rounds.parquet"), read_table(two / "rounds.parquet")
        assert others["train_loss"].tolist() == pytest.approx(rounds["train_loss"].tolist(), rel=1e-5)
        if record["status"] == "finished":
            tensors = read_tensors(one / "model.safetensors")[0]
            for name, tensor in read_tensors(two / "model.safetensors")[0].items():
                torch.testing.assert_close(tensor, tensors[name], rtol=0, atol=1e-6 * max(1, float(tensor.abs().max())))
    assert [record["status"] for record in expected] == ["finished", "diverged", "finished"]
