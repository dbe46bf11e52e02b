"""Jobs that train: by SGD, by clients and a server, and by SGD with weights kept on the way."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from hessketch.config import runs_of, trajectory_runs_of
from hessketch.config_runs import job_of
from hessketch.config_schema import as_mapping
from hessketch.eigenspace_config import EIGENSPACES, kept_steps, with_dataset
from hessketch.federation_config import federated_runs_of, group_of
from hessketch.landscape_configs import BASINS
from hessketch.planning.jobs import EVALUATION_BATCH, GRADIENT_BYTES, Job, Plan, evaluated, gathered
from hessketch.planning.sizes import NetworkSize
from hessketch.planning.work import Work, dense, passes, side_by_side, together
from hessketch.runs import Run
from hessketch.trainers import FEDERATED, Trainer

# How often a training, a federation and a followed training look at loss and accuracy on their way.
EVALUATIONS, FEDERATED_EVALUATIONS, FOLLOWED_EVALUATIONS = 20, 20, 50
# Clients side by side on a CPU: at most so many, and so many parameters and examples.
MOST_CLIENTS, PARAMETERS_AT_ONCE, EXAMPLES_AT_ONCE = 32, 2**22, 2000
# Vectors in memory while a network is trained: weights, gradient, momentum, the last finite weights.
_VECTORS = 4


def train_jobs(plan: Plan) -> list[Job]:
    """One for each run by plain SGD, and the selection of each cell's rate."""
    jobs, runs = [], runs_of(plan.config)
    for run in runs:
        network, n = plan.network(run), plan.scale.trained_on(run)
        epochs, batch = plan.config["datasets"][run.dataset]["epochs"], plan.config["training"]["batch_size"]
        work = passes("train", network, n, epochs, batch=batch)
        tests = plan.scale.examples_of(run.dataset, None, "test")
        work += evaluated(network, tests, min(epochs, EVALUATIONS))
        jobs.append(Job("train", f"train/{run.path}", in_memory(work, network, min(batch, n))))
    for cell, of_cell in gathered(runs, lambda run: run.cell.path).items():
        after = tuple(f"train/{run.path}" for run in of_cell)
        jobs.append(Job("select_learning_rate", f"selected/{cell}", after=after, start="table"))
    return jobs


def in_memory(work: Work, network: NetworkSize, examples: float) -> Work:
    """The work with the bytes that steps of so many examples take, or an evaluation."""
    step = GRADIENT_BYTES * network.activations * examples
    evaluation = 4 * 2 * network.widest * EVALUATION_BATCH
    return work.holding(max(step, evaluation) + 4 * _VECTORS * network.parameters)


def federate_jobs(plan: Plan) -> list[Job]:
    """One for each group of rates and seeds, or for each run."""
    federation = plan.config.get("federation")
    if federation is None:
        return []
    one = federation["runs_per_job"] == "one"
    groups = gathered(federated_runs_of(plan.config), (lambda run: run.path) if one else group_of)
    return [
        Job("federate", f"federate/{path}", together(_federated(plan, federation, run) for run in runs))
        for path, runs in groups.items()
    ]


def federate_names(plan: Plan, runs: Sequence[Run]) -> tuple[str, ...]:
    """Names of the jobs that train these runs."""
    one = plan.config["federation"]["runs_per_job"] == "one"
    return tuple(dict.fromkeys(f"federate/{run.path if one else group_of(run)}" for run in runs))


def _federated(plan: Plan, federation: Mapping[str, Any], run: Run) -> Work:
    network, n, trainer = plan.network(run), plan.scale.trained_on(run), Trainer.parse(run.trainer)
    participants = max(1, round(federation["participation"] * federation["clients"]))
    each = n / federation["clients"]
    size = min(each, federation["local_batch_size"] or each)
    at_once = clients_at_once(federation, network, size)
    steps, rounds = federation["local_steps"], federation["rounds"]
    if at_once == 1:
        work = passes("train", network, size, participants * steps * rounds, batch=federation["micro_batch"])
    else:
        work = side_by_side("clients", network, size, participants, at_once) * (steps * rounds)
    work += _compressed(trainer, federation, network, participants) * rounds
    looks = min(rounds, FEDERATED_EVALUATIONS)
    work += evaluated(network, plan.scale.examples_of(run.dataset, None, "test"), looks + 1)
    work += evaluated(network, n, 2 + len(federation["checkpoint_rounds"]))
    # Each client side by side has weights, slopes and an update of its own; each memory of errors stays.
    own = trainer.method == "top_r" or trainer.method not in FEDERATED
    memories = participants if trainer.error_feedback and own else 1
    return in_memory(work, network, size * at_once).holding(4 * network.parameters * (3 * at_once + memories))


def clients_at_once(federation: Mapping[str, Any], network: NetworkSize, size: float) -> int:
    """Clients of so many examples that are computed side by side."""
    fit = min(MOST_CLIENTS, PARAMETERS_AT_ONCE // network.parameters, EXAMPLES_AT_ONCE // math.ceil(size))
    if not federation["local_batch_size"] and size > federation["micro_batch"]:
        return 1
    return max(1, int(federation["chunk"] or fit))


def _compressed(trainer: Trainer, federation: Mapping[str, Any], network: NetworkSize, participants: int) -> Work:
    """What a method does with updates, as passes over p numbers: a sketch hashes, adds up and looks up each of them in
    every row, of the mean of all updates; the largest entries are looked for in each client's own. A registered method
    is taken to cost as much as these."""
    if trainer.method == "uncompressed":
        return dense("basis", network.parameters, 1)
    if trainer.method == "top_r" or trainer.method not in FEDERATED:
        return dense("basis", network.parameters, 6, participants)
    rows = federation["fetch_rows"] if trainer.method == "fetch_sgd" else federation["rows"]
    return dense("basis", network.parameters, 10 * rows)


def trajectory_jobs(plan: Plan) -> list[Job]:
    """One for each job of runs that keep their weights, of every section that has some."""
    jobs = []
    for study, runs in trajectory_runs_of(plan.config).items():
        section = as_mapping(plan.config.get(study))
        for job, of_job in gathered(runs, partial(job_of, section)).items():
            work = together(_followed(plan, study, run) for run in of_job)
            jobs.append(Job(f"trajectories_{study}", trajectory_name(study, job), work))
    return jobs


def trajectory_name(study: str, job: str) -> str:
    """Name of the job that trains the runs of a job of a section."""
    return f"trajectories/{study}/{job}"


def test_examples(plan: Plan, study: str, run: Run) -> int:
    """Test examples of a run of a section."""
    size = plan.config[study]["datasets"][run.dataset].get("test_examples_per_class")
    return plan.scale.examples_of(run.dataset, size, "test")


def _followed(plan: Plan, study: str, run: Run) -> Work:
    section, network, n = plan.config[study], plan.network(run), plan.scale.trained_on(run)
    if study == EIGENSPACES:
        section = with_dataset(section, run.dataset)
    trainer = Trainer.parse(run.trainer)
    batch = min(trainer.batch_size or n, n)
    if "epochs" in section:
        steps, kept = section["epochs"] * math.ceil(n / batch), len(section["checkpoint_epochs"])
    else:
        steps, kept = section["steps"], len(_kept(study, section))
    later = steps - section["switch_step"] if trainer.later_batch_size else 0
    work = passes("train", network, batch, steps - later)
    if trainer.later_batch_size and later:
        work += passes("train", network, trainer.later_batch_size, later)
    work += evaluated(network, n + test_examples(plan, study, run), min(steps, FOLLOWED_EVALUATIONS) + kept)
    return in_memory(work, network, batch)


def _kept(study: str, section: Mapping[str, Any]) -> list[int]:
    if study == EIGENSPACES:
        return kept_steps(section)
    return [section["switch_step"], section["steps"]] if study == BASINS else section["checkpoint_steps"]
