"""The sections `predictor_hessian` and `sgd_dynamics` of a config: what is wrong with them, and the runs they ask for.

Imports neither torch nor pandas, but for `rank_problems`, which builds networks to count their parameters.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from hessketch.config_data import dataset_problems, has_batch_norm, network_problems
from hessketch.config_runs import (
    batch_problems,
    beyond,
    federated_problems,
    is_whole,
    sgd_run,
    steps_of_sgd,
    training_examples,
)
from hessketch.config_schema import as_list, as_mapping
from hessketch.data.catalog import describe
from hessketch.federation_config import count_parameters
from hessketch.runs import Run
from hessketch.trainers import Trainer

PREDICTOR, DYNAMICS = "predictor_hessian", "sgd_dynamics"


def _run(dataset: str, noise: float, size: int, network: Mapping, loss: str, batch: int, rate: float, seed: int) -> Run:
    return sgd_run(
        network,
        Trainer("sgd", batch_size=batch),
        dataset=dataset,
        label_noise=noise,
        examples_per_class=size,
        loss=loss,
        learning_rate=rate,
        seed=seed,
    )


def predictor_runs_of(config: Mapping[str, Any]) -> list[Run]:
    """Every run by SGD of a filled config's section `predictor_hessian`; none without it."""
    section = config.get(PREDICTOR)
    if section is None:
        return []
    return [
        _run(dataset, 0, settings["examples_per_class"], network, loss, section["batch_size"], rate, seed)
        for (dataset, settings), network in product(section["datasets"].items(), section["networks"])
        for (loss, rate), seed in product(settings["learning_rates"].items(), section["seeds"])
    ]


def predictor_trainers_of(config: Mapping[str, Any]) -> list[str]:
    """Labels of the federated trainers whose kept rounds are looked at, each as it stands in paths."""
    return [Trainer.parse(label).label for label in as_mapping(config.get(PREDICTOR)).get("trainers", [])]


def dynamics_runs_of(config: Mapping[str, Any]) -> list[Run]:
    """Every run of a filled config's section `sgd_dynamics`; none without it.

    The first network of a data set crosses label noise and batch size; other networks cross label noise at the first
    batch size; other numbers of examples have the first of all.
    """
    section = config.get(DYNAMICS)
    if section is None:
        return []
    runs = []
    for dataset, settings in section["datasets"].items():
        batches = [steps_of_sgd(size) for size in _batch_sizes(section, settings)]
        networks, noises, sizes = (settings[key] for key in ("networks", "label_noise", "examples_per_class"))
        cells = [
            *product(networks[:1], noises, batches, sizes[:1]),
            *product(networks[1:], noises, batches[:1], sizes[:1]),
            *product(networks[:1], noises[:1], batches[:1], sizes[1:]),
        ]
        runs += [
            _run(dataset, noise, size, network, section["loss"], batch, settings["learning_rate"], seed)
            for (network, noise, batch, size), seed in product(cells, section["seeds"])
        ]
    return runs


def _batch_sizes(section: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Batch sizes of a data set: its own, or those of the section."""
    return settings.get("batch_sizes", section.get("batch_sizes"))


def followed_size(config: Mapping[str, Any], run: Run) -> int:
    """Examples of each class at which runs of a data set are looked at along their training."""
    return config[DYNAMICS]["datasets"][run.dataset]["examples_per_class"][0]


def top_of(section: Mapping[str, Any], dataset: str) -> int:
    """How many leading eigenvalues of a data set's networks are followed."""
    return describe(dataset).classes if section["top"] == "classes" else section["top"]


def trajectory_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What a schema cannot say of the two sections, their defaults filled: one line a problem."""
    if config.get(PREDICTOR) is not None:
        yield from _predictor_problems(as_mapping(config[PREDICTOR]), as_mapping(config.get("federation")))
    if config.get(DYNAMICS) is not None:
        yield from _dynamics_problems(as_mapping(config[DYNAMICS]))


def _predictor_problems(section: Mapping[str, Any], federation: Mapping[str, Any]) -> Iterator[str]:
    networks = [as_mapping(network) for network in as_list(section.get("networks"))]
    datasets = {str(name): as_mapping(value) for name, value in as_mapping(section.get("datasets")).items()}
    yield from beyond(
        f"{PREDICTOR}.checkpoint_epochs", section.get("checkpoint_epochs"), section.get("epochs"), "epochs"
    )
    yield from network_problems(f"{PREDICTOR}.networks", networks, datasets)
    points = section.get("grid_points")
    for key in ("lanczos_steps", "fast_steps"):
        steps = section.get(key)
        if is_whole(points) and is_whole(steps) and points < steps:
            yield f"{PREDICTOR}.grid_points: {points} given; allowed: at least as many as the {steps} {key}"
    for name, settings in datasets.items():
        yield from dataset_problems(f"{PREDICTOR}.datasets", name, settings)
        n = training_examples(name, settings.get("examples_per_class"))
        yield from batch_problems(f"{PREDICTOR}.batch_size", [section.get("batch_size")], name, n, networks)
        yield from _example_problems(section, f"datasets.{name}", n)
    yield from _federated_problems(section, federation)


def _federated_problems(section: Mapping[str, Any], federation: Mapping[str, Any]) -> Iterator[str]:
    """Trainers that there are not, and examples that the data of the section federation do not have."""
    yield from federated_problems(f"{PREDICTOR}.trainers", section.get("trainers"), federation)
    for name, settings in as_mapping(federation.get("datasets")).items() if as_list(section.get("trainers")) else ():
        n = training_examples(str(name), as_mapping(settings).get("examples_per_class"))
        yield from _example_problems(section, f"federation.datasets.{name}", n)


def _example_problems(section: Mapping[str, Any], dataset: str, n: int | None) -> Iterator[str]:
    for example in as_list(section.get("examples")):
        if n is not None and is_whole(example) and example >= n:
            yield (
                f"{PREDICTOR}.examples: {example} given, {dataset} has {n} training examples; allowed: 0 to {n - 1}; "
                "or give more examples_per_class"
            )


def _dynamics_problems(section: Mapping[str, Any]) -> Iterator[str]:
    kept = as_list(section.get("checkpoint_steps"))
    yield from beyond(f"{DYNAMICS}.checkpoint_steps", kept, section.get("steps"), "steps")
    if kept and 0 not in kept:
        yield f"{DYNAMICS}.checkpoint_steps: without 0, the initial weights that the generalisation bound needs; add 0"
    for name, settings in as_mapping(section.get("datasets")).items():
        name, settings, where = str(name), as_mapping(settings), f"{DYNAMICS}.datasets.{name}"
        networks = [as_mapping(network) for network in as_list(settings.get("networks"))]
        yield from dataset_problems(f"{DYNAMICS}.datasets", name, settings)
        yield from network_problems(f"{where}.networks", networks, [name])
        if has_batch_norm(networks):
            yield (
                f"{where}.networks: norm batch given (the default); allowed here: none, group, since steps in training "
                "mode are not those of the frozen network that is measured, and its running statistics know the data, "
                "which a prior must not"
            )
        batches = as_list(_batch_sizes(section, settings))
        where_batches = f"{where if 'batch_sizes' in settings else DYNAMICS}.batch_sizes"
        for position, size in enumerate(as_list(settings.get("examples_per_class"))):
            n = training_examples(name, size)
            # Only the first size meets every batch size, and is looked at along the training.
            yield from batch_problems(where_batches, batches[: None if position == 0 else 1], name, n, networks)
            if position == 0:
                if "all" in batches and n in batches:
                    yield f"{where_batches}: all and {n} are the same with datasets.{name}; remove one"
                yield from _rank_of_covariance(section, name, n)


def _rank_of_covariance(section: Mapping[str, Any], name: str, n: int | None) -> Iterator[str]:
    if n is None or not (section.get("top") == "classes" or is_whole(section.get("top"))):
        return
    k = top_of(section, name)
    if k > n - 1:
        yield (
            f"{DYNAMICS}.top: {k} eigenvalues asked for, the gradient covariance of the {n} training examples of "
            f"datasets.{name} has rank {n - 1} at most; allowed: 1 to {n - 1}; or give more examples_per_class"
        )


def rank_problems(config: Mapping[str, Any]) -> list[str]:
    """Networks of a filled config with fewer parameters than eigenvalues are asked for. Imports torch."""
    section = as_mapping(config.get(DYNAMICS))
    lines = []
    for dataset, settings in section.get("datasets", {}).items():
        k = top_of(section, dataset)
        for network in settings["networks"]:
            p = count_parameters(dataset, network, section["loss"])
            if k > p:
                lines.append(
                    f"{DYNAMICS}.top: {k} eigenvalues asked for, {network['name']} of width {network['width']:g} on "
                    f"{dataset} has {p} parameters; allowed: at most {p}; or a wider network"
                )
    return lines
