"""What the sections of a config that follow trainings share: their runs, and what is wrong with steps and batches.

Imports neither torch nor pandas.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

from hessketch.config_data import has_batch_norm
from hessketch.config_schema import as_list
from hessketch.data.catalog import describe
from hessketch.errors import InputError, nearest
from hessketch.federation_config import trainers_of
from hessketch.runs import Run
from hessketch.trainers import FULL_BATCH, Trainer


def sgd_run(network: Mapping[str, Any], trainer: Trainer, **others: Any) -> Run:
    """The run of a filled config's network by a trainer; a size `all` is every example."""
    size = others.pop("examples_per_class")
    return Run.of_network(network, trainer=trainer.label, examples_per_class=None if size == "all" else size, **others)


def steps_of_sgd(size: Any) -> int:
    """A config's batch size for a Trainer: `all` is the full batch."""
    return FULL_BATCH if size == "all" else size


def job_of(section: Mapping[str, Any], run: Run) -> str:
    """What the runs of one job share, as a path: data set and network, or the run itself."""
    return f"{run.dataset}/{run.network_label}" if section["runs_per_job"] == "group" else run.path


def beyond(where: str, kept: Any, last: Any, unit: str) -> Iterator[str]:
    """Steps, epochs or rounds to keep that never come."""
    for number in as_list(kept):
        if is_whole(number) and is_whole(last) and number > last:
            yield f"{where}: {number} is beyond the {last} {unit}; allowed: 0 to {last}"


def batch_problems(
    where: str, sizes: Iterable[Any], name: str, n: int | None, networks: list[Mapping[str, Any]]
) -> Iterator[str]:
    """Batches larger than the n examples of a data set, and batches of one with batch norm."""
    for size in sizes:
        if n is not None and is_whole(size) and size > n:
            yield f"{where}: {size} given, datasets.{name} has {n} training examples; allowed: at most {n}"
        if size == 1 and has_batch_norm(networks):
            yield f"{where}: 1 given; allowed with batch norm: at least 2 (one example has no variance)"


def federated_problems(where: str, wanted: Any, federation: Mapping[str, Any]) -> Iterator[str]:
    """Trainers that the section federation does not have, or whose rounds are not kept; `where` is their key."""
    wanted = [label for label in as_list(wanted) if isinstance(label, str)]
    labels = [trainer.label for trainer in trainers_of(federation)]
    for label in wanted:
        try:
            known = Trainer.parse(label).label
        except InputError as error:
            yield f"{where}: {error}"
            continue
        if known not in labels and (labels or not federation):  # without labels another line has named methods
            allowed = f"{', '.join(labels)}{nearest(label, labels)}" if labels else "none without a section federation"
            yield f"{where}: {label} is not among the trainers of federation; allowed: {allowed}"
    if wanted and labels and not as_list(federation.get("checkpoint_rounds")):
        yield f"{where}: no rounds of them are kept; give federation.checkpoint_rounds"


def training_examples(name: str, per_class: Any) -> int | None:
    """Training examples of all classes; None for what another line has named."""
    try:
        dataset = describe(name)
    except InputError:
        return None
    if per_class == "all":
        return sum(dataset.train_per_class)
    return per_class * dataset.classes if is_whole(per_class) and per_class >= 1 else None


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number (true and false are none)."""
    return isinstance(value, int) and not isinstance(value, bool)
