"""The section `federation` of a config: what is wrong with it, and the runs that it asks for.

Imports neither torch nor pandas, but for `reduction_problems`, which builds networks to count their parameters.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, TypeGuard

import numpy as np

from hessketch.config_data import dataset_problems, has_batch_norm, network_problems
from hessketch.config_schema import as_list, as_mapping
from hessketch.data.catalog import describe
from hessketch.errors import InputError, nearest
from hessketch.federated.partition import KINDS, partition, partition_seed
from hessketch.runs import Run
from hessketch.trainers import Trainer, is_reduced, named_methods

# Keys that say what is run and kept; every other key of the section is a setting of the simulation.
SWEEP = (
    "datasets", "networks", "losses", "seeds", "methods", "reductions", "learning_rates",
    "runs_per_job", "checkpoint_rounds", "checkpoint_losses", "spectra_of",
)  # fmt: skip


def trainers_of(federation: Mapping[str, Any]) -> list[Trainer]:
    """Every trainer of a section: methods that have a reduction with each, others once; unsound entries left out."""
    reductions = [r for r in as_list(federation.get("reductions")) if _is_number(r) and r >= 1]
    trainers = []
    for method in as_list(federation.get("methods")):
        if method not in named_methods():
            continue
        name, error_feedback = method.removesuffix("_ef"), method.endswith("_ef")
        trainers += [Trainer(name, error_feedback, size) for size in (reductions if is_reduced(name) else [None])]
    return trainers


def federated_runs_of(config: Mapping[str, Any]) -> list[Run]:
    """Every federated run that a filled config asks for, those of a group together; none without the section."""
    federation = config.get("federation")
    if federation is None:
        return []
    cells = product(federation["datasets"].items(), federation["networks"], federation["losses"])
    return [
        Run.of_network(
            network,
            dataset=dataset,
            label_noise=settings["label_noise"],
            examples_per_class=_per_class(settings),
            loss=loss,
            trainer=trainer.label,
            learning_rate=rate,
            seed=seed,
        )
        for (dataset, settings), network, loss in cells
        for trainer, rate, seed in product(trainers_of(federation), federation["learning_rates"], federation["seeds"])
    ]


def spectra_of(federation: Mapping[str, Any]) -> list[str]:
    """Labels of the trainers whose kept weights get spectra, each as it stands in paths."""
    return [Trainer.parse(label).label for label in federation["spectra_of"]]


def group_of(run: Run) -> str:
    """What all rates and seeds of one trainer share: a run's path up to the trainer."""
    return run.cell.path.rpartition("/")[0]


def settings_of(federation: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a section that are fields of FederatedSettings, which itself imports torch."""
    return {key: value for key, value in federation.items() if key not in SWEEP}


def federation_problems(federation: Mapping[str, Any]) -> Iterator[str]:
    """What a schema cannot say of a section, its defaults filled: one line a problem, none for an empty section."""
    if not federation:
        return
    datasets = {str(name): as_mapping(value) for name, value in as_mapping(federation.get("datasets")).items()}
    networks = [as_mapping(network) for network in as_list(federation.get("networks"))]
    for name, settings in datasets.items():
        yield from dataset_problems("federation.datasets", name, settings)
    yield from network_problems("federation.networks", networks, datasets)
    yield from _checkpoint_problems(federation)
    rows = federation.get("fetch_rows")
    if type(rows) is int and rows > 0 and rows % 2 == 0:
        yield (
            f"federation.fetch_rows: {rows} given, but a median needs an odd number of rows (of an even one it is "
            f"biased); allowed: 1, 3, 5, ...; write {rows - 1} or {rows + 1}"
        )
    if federation.get("local_batch_size") == 1 and has_batch_norm(networks):
        yield "federation.local_batch_size: 1 given; allowed with batch norm: 0 or at least 2; or write norm: group"
    for name, settings in datasets.items():
        yield from _split_problems(federation, name, settings, has_batch_norm(networks))


def _checkpoint_problems(federation: Mapping[str, Any]) -> Iterator[str]:
    last = federation.get("rounds")
    kept = as_list(federation.get("checkpoint_rounds"))
    for number in kept:
        if type(number) is int and type(last) is int and number > last:
            yield f"federation.checkpoint_rounds: {number} is beyond the {last} rounds; allowed: 1 to {last}"
    labels = [trainer.label for trainer in trainers_of(federation)]
    wanted = as_list(federation.get("spectra_of"))
    for label in filter(lambda wanted: isinstance(wanted, str), wanted):
        try:
            known = Trainer.parse(label).label
        except InputError as error:
            yield f"federation.spectra_of: {error}"
            continue
        if labels and known not in labels:  # without labels another line has named methods or reductions
            yield (
                f"federation.spectra_of: {label} is not among the trainers of this section; allowed: "
                f"{', '.join(labels)}{nearest(label, labels)}; or add its method and reduction"
            )
    if wanted and not kept and not as_list(federation.get("checkpoint_losses")):
        yield "federation.spectra_of: no weights are kept for it; give checkpoint_rounds or checkpoint_losses"


def _split_problems(
    federation: Mapping[str, Any], name: str, settings: Mapping[str, Any], batch_norm: bool
) -> Iterator[str]:
    """Examples that cannot be spread over the clients as asked: the split is made as the simulation will make it.

    Of the labels only their counts are known here, without their noise: sizes of a dirichlet split follow from the
    counts, those of the other kinds do not depend on labels at all.
    """
    counts = _class_counts(name, settings.get("examples_per_class"))
    clients = federation.get("clients")
    if counts is None or not _is_count(clients):
        return
    n = sum(counts)
    if clients > n:
        yield (
            f"federation.clients: {clients} given, datasets.{name} has {n} training examples; allowed: at most {n}; "
            "give fewer clients or more examples_per_class"
        )
        return
    kind, least = federation.get("partition"), federation.get("least_examples")
    alpha, shards = federation.get("alpha"), federation.get("shards_per_client")
    if not (kind in KINDS and _is_number(alpha) and alpha > 0 and _is_count(shards) and _is_count(least)):
        return  # a value that the schema has named
    noise = settings.get("label_noise", 0)
    if kind == "dirichlet" and _is_number(noise) and noise > 0:
        yield (
            f"federation.datasets.{name}.label_noise: {noise:g} given; allowed with partition dirichlet: 0, since such "
            "a split goes by the labels, and which are wrong is not known before the data are read; write label_noise: "
            "0, partition: iid or partition: shards"
        )
        return
    labels = np.repeat(np.arange(len(counts)), counts)
    for seed in filter(lambda seed: type(seed) is int, as_list(federation.get("seeds"))):
        try:
            parts = partition(
                labels,
                clients,
                kind,
                partition_seed(seed, name, _per_class(settings)),
                alpha=alpha,
                shards_per_client=shards,
                least=least,
            )
        except InputError as error:
            yield f"federation.partition: datasets.{name}, seed {seed}: {error}"
            return
        if batch_norm and min(map(len, parts)) == 1:
            yield (
                f"federation.clients: of datasets.{name} a client has a single example, whose batch norm has no "
                "variance; allowed: at least 2 a client; give fewer clients, more examples, or write norm: group"
            )
            return


def _per_class(settings: Mapping[str, Any]) -> int | None:
    """Training examples of each class of a data set's settings, None for all."""
    return None if settings["examples_per_class"] == "all" else settings["examples_per_class"]


def _class_counts(name: str, size: Any) -> list[int] | None:
    """Training examples of each class, or None for a data set or a size that another line has named."""
    try:
        available = list(describe(name).train_per_class)
    except InputError:
        return None
    if size == "all":
        return available
    return [size] * len(available) if type(size) is int and 1 <= size <= min(available) else None


def reduction_problems(config: Mapping[str, Any]) -> list[str]:
    """Reductions and rows that a network of a filled config is too small for, one line each. Imports torch."""
    from hessketch.federated.methods.registry import ROWS, require_reduction, require_rows
    from hessketch.federated.settings import FederatedSettings

    federation = config.get("federation")
    if federation is None:
        return []
    try:
        settings = FederatedSettings(**settings_of(federation))
    except InputError as error:
        return [f"federation: {error}"]
    lines = []
    for dataset, network, loss in product(federation["datasets"], federation["networks"], federation["losses"]):
        parameters = count_parameters(dataset, network, loss)
        for trainer in trainers_of(federation):
            key = ROWS.get(trainer.method, "methods")
            try:
                require_rows(trainer, parameters, settings)
                key = "reductions"
                require_reduction(trainer, parameters, settings)
            except InputError as error:
                lines.append(f"federation.{key}: {network['name']} of width {network['width']} on {dataset}: {error}")
    return list(dict.fromkeys(lines))  # of rows a line says the same for every reduction


def count_parameters(dataset: str, network: Mapping[str, Any], loss: str) -> int:
    """Parameters p of a filled config's network on a data set. Imports torch."""
    from hessketch.curvature.losses import outputs_of
    from hessketch.networks.registry import build_network

    described = describe(dataset)
    outputs = outputs_of(loss, described.classes)
    arguments = {key: network[key] for key in ("name", "norm", "width")}
    model = build_network(**arguments, input_shape=described.input_shape, classes=outputs)
    return sum(parameter.numel() for parameter in model.parameters())


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
