"""The round as an app of Flower (Beutel et al. 2020): clients send sketches, the server averages and lifts them.

Runs in a process of its own that `benchmarks.flower_round` starts, which asks for every round by a line on stdin and
gets a line on stdout with the CPU time that it took.
"""

import functools
import json
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks.client_rounds import Task, difference
from benchmarks.flower_round import cpu_seconds
from hessketch.linalg.count_sketch import CountSketch

client = ClientApp()


@functools.cache
def _client_side(facts: str) -> tuple[Task, nn.Module, list]:
    """What a worker process keeps between clients: the model to load weights into, and everybody's images."""
    task = Task(**json.loads(facts))
    return task, task.model(), task.data().batches(task.examples)


@functools.lru_cache(maxsize=1)
def _sketch(facts: str, dimension: int, number: int) -> CountSketch:
    return Task(**json.loads(facts)).sketch(dimension, number)


@client.train()
def train(message: Message, context: Context) -> Message:
    """One client's local steps, answered by its table."""
    config = message.content["config"]
    task, model, clients = _client_side(config["task"])
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    update = difference(model, *clients[context.node_config["partition-id"]], task)
    table = _sketch(config["task"], len(update), config["server-round"] - 1).apply(update)
    content = RecordDict(
        {"arrays": ArrayRecord({"table": Array(table.cpu().numpy())}), "metrics": MetricRecord({"num-examples": 1})}
    )
    return Message(content=content, reply_to=message)


class SketchedAveraging(FedAvg):
    """Averages the clients' tables as FedAvg does weights, and subtracts what the mean is lifted to.

    A round waits for a line on stdin; the weights after it are written to `weights`.
    """

    def __init__(self, task: Task, weights: Path, replies: TextIO):
        everybody = {"min_train_nodes": task.clients, "min_available_nodes": task.clients}
        super().__init__(fraction_train=1.0, fraction_evaluate=0.0, **everybody)
        self._task, self._model, self._weights, self._replies = task, task.model(), weights, replies

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if not sys.stdin.readline():
            raise SystemExit("nobody asks for rounds any more")
        self._before = cpu_seconds(os.getpid())
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None or len(replies) < self._task.clients or any(reply.has_error() for reply in replies):
            raise RuntimeError(f"round {server_round}: not all clients answered")
        weights = parameters_to_vector(self._model.parameters()).detach()
        sketch = self._task.sketch(len(weights), server_round - 1)
        table = torch.from_numpy(mean["table"].numpy()).to(self._task.device)
        weights = weights - sketch.lift(table)
        vector_to_parameters(weights, self._model.parameters())
        torch.save(weights.cpu(), self._weights)
        print(cpu_seconds(os.getpid()) - self._before, file=self._replies, flush=True)
        return ArrayRecord(self._model.state_dict()), metrics


def main() -> None:
    """Arguments: a task's facts, rounds, worker processes and the file for the weights, as JSON."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    warnings.simplefilter("ignore")
    facts, rounds, workers, weights = json.loads(sys.argv[1])
    task = Task(**facts)
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = SketchedAveraging(task, Path(weights), replies)
        config = ConfigRecord({"task": json.dumps(facts)})
        strategy.start(grid, ArrayRecord(task.model().state_dict()), num_rounds=rounds, train_config=config)

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=task.clients,
        backend_config={
            "init_args": {"num_cpus": workers, "log_to_driver": False, "_temp_dir": str(Path(weights).parent)},
            "client_resources": {"num_cpus": 1, "num_gpus": 1 / workers if task.device == "cuda" else 0.0},
        },
    )
