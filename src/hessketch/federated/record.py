"""What makes a federated training repeatable, and what came out of it, for its record."""

import math
from dataclasses import asdict
from typing import Any

from hessketch.checkpoints import parameter_order
from hessketch.federated.messages import Part, size_in_bytes
from hessketch.federated.simulation import Simulation
from hessketch.provenance import environment
from hessketch.runs import Run
from hessketch.trainers import Trainer


def record_of(run: Run, simulation: Simulation, rows: list[dict[str, Any]], diverged_at: str | None) -> dict[str, Any]:
    """Identity, settings, outcome, sizes and bytes of a training whose rounds were `rows`.

    Bytes are those of a participant in a round: upload, and the mean over rounds of the download. reduction_numbers is
    p over the numbers sent (indices not counted), reduction_bytes the length of a whole update's message over that of
    the one sent.
    """
    trainer, method, p = Trainer.parse(run.trainer), simulation.method, len(simulation.theta)
    return {
        "run": run.path,
        "identity": run.identity(),
        "learning_rate": run.learning_rate,
        "settings": asdict(simulation.settings),
        "method": trainer.method,
        "error_feedback": trainer.error_feedback,
        "reduction": trainer.reduction,
        "status": "finished" if diverged_at is None else "diverged",
        "diverged_at": diverged_at,
        "epochs": len(rows),
        "rounds": len(rows),
        "n": len(simulation.examples),
        "p": p,
        "classes": simulation.examples.classes,
        "clients": simulation.settings.clients,
        "client_examples": simulation.client_examples,
        "participants": simulation.settings.participants,
        "upload_numbers": method.upload_numbers,
        "reduction_numbers": p / method.upload_numbers,
        "reduction_bytes": size_in_bytes((Part("float32", p),)) / size_in_bytes(method.upload_parts),
        "upload_bytes": _mean([row["upload_bytes"] for row in rows]),
        "download_bytes": _mean([row["download_bytes"] for row in rows]),
        "processes": simulation.processes,
        "parameter_order": parameter_order(simulation.model),
        "environment": environment(simulation.theta.device),
    }


def summary(record: dict[str, Any]) -> str:
    """One line on a finished training."""
    where = f" at {record['diverged_at']}" if record["diverged_at"] else ""
    return (
        f"{record['run']}: {record['status']}{where}, train loss {record['train_loss']:.4g}, "
        f"test accuracy {record['test_accuracy']:.4f}"
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
