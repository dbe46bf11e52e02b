"""The section `eigenspaces` of a config: what is wrong with it, and the runs it asks for.

Imports neither torch nor pandas, but for `eigenpair_problems`, which builds networks to count their parameters.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from hessketch.config_data import dataset_problems, network_problems
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
from hessketch.errors import InputError
from hessketch.federation_config import count_parameters
from hessketch.linalg.sketch_sizes import default_measurements, default_pairs, least_measurements
from hessketch.runs import Run
from hessketch.trainers import Trainer

EIGENSPACES = "eigenspaces"


_OF_DATASET = ("batch_size", "steps", "checkpoint_steps", "stability_steps", "pairs")


def with_dataset(section: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The section with what one of its data sets says in its place."""
    own = as_mapping(as_mapping(section.get("datasets")).get(dataset))
    return {**section, **{key: own[key] for key in _OF_DATASET if key in own}}


def eigenspace_runs_of(config: Mapping[str, Any]) -> list[Run]:
    """Every run of a filled config's section `eigenspaces`: data set, network and seed; none without it."""
    section = config.get(EIGENSPACES)
    if section is None:
        return []
    return [
        sgd_run(
            network,
            Trainer("sgd", batch_size=steps_of_sgd(with_dataset(section, dataset)["batch_size"])),
            dataset=dataset,
            label_noise=0,
            examples_per_class=settings["examples_per_class"],
            loss=section["loss"],
            learning_rate=settings["learning_rate"],
            seed=seed,
        )
        for dataset, settings in section["datasets"].items()
        for network, seed in product(settings["networks"], section["seeds"])
    ]


def eigenspace_trainers_of(config: Mapping[str, Any]) -> list[str]:
    """Labels of the federated trainers whose kept rounds are looked at, each as it stands in paths."""
    return [Trainer.parse(label).label for label in as_mapping(config.get(EIGENSPACES)).get("trainers", [])]


def eigenspace_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What a schema cannot say of the section, its defaults filled: one line a problem."""
    if config.get(EIGENSPACES) is None:
        return
    section, federation = as_mapping(config[EIGENSPACES]), as_mapping(config.get("federation"))
    yield from _step_problems(EIGENSPACES, section)
    yield from _sketch_problems(EIGENSPACES, section)
    for name, settings in as_mapping(section.get("datasets")).items():
        yield from _dataset_problems(section, str(name), as_mapping(settings))
    yield from federated_problems(f"{EIGENSPACES}.trainers", section.get("trainers"), federation)


def _step_problems(where: str, section: Mapping[str, Any]) -> Iterator[str]:
    for key in ("checkpoint_steps", "stability_steps"):
        yield from beyond(f"{where}.{key}", section.get(key), section.get("steps"), "steps")


def _sketch_problems(where: str, section: Mapping[str, Any]) -> Iterator[str]:
    pairs, measurements = section.get("pairs"), section.get("measurements")
    if not (is_whole(pairs) and is_whole(measurements) and measurements > 0):
        return
    method = section.get("sketch_method", "")
    least = least_measurements(pairs, method)
    if measurements < least:
        yield (
            f"{where}.pairs: {pairs} given with {measurements} measurements; sketch_method "
            f"{section.get('sketch_method')} needs at least {least}; allowed: fewer pairs, more measurements, or 0 for "
            "twice the pairs and 10 more"
        )


def _dataset_problems(section: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> Iterator[str]:
    where, given = f"{EIGENSPACES}.datasets.{name}", with_dataset(section, name)
    networks = [as_mapping(network) for network in as_list(settings.get("networks"))]
    yield from dataset_problems(f"{EIGENSPACES}.datasets", name, settings)
    yield from network_problems(f"{where}.networks", networks, [name])
    if any(key in settings for key in ("steps", "checkpoint_steps", "stability_steps")):
        yield from _step_problems(where, given)
    if "pairs" in settings:
        yield from _sketch_problems(where, given)
    n = training_examples(name, settings.get("examples_per_class"))
    where_batch = f"{where if 'batch_size' in settings else EIGENSPACES}.batch_size"
    yield from batch_problems(where_batch, [given.get("batch_size")], name, n, networks)
    wanted = settings.get("hessian_examples_per_class")
    for split, key in (("train", "examples_per_class"), ("test", "test_examples_per_class")):
        there = _of_class(name, split, settings.get(key))
        if is_whole(wanted) and there is not None and split in as_list(section.get("splits")) and wanted > there:
            yield (
                f"{where}.hessian_examples_per_class: {wanted} given, a class has {there} {split} examples; allowed: "
                f"at most {there}; or more {key}"
            )


def _of_class(name: str, split: str, given: Any) -> int | None:
    """Examples of the smallest class that a run has; None for what another line has named."""
    try:
        dataset = describe(name)
    except InputError:
        return None
    available = min(dataset.train_per_class if split == "train" else dataset.test_per_class)
    if given == "all":
        return available
    return given if is_whole(given) and 1 <= given <= available else None


def eigenpair_problems(config: Mapping[str, Any]) -> list[str]:
    """More eigenpairs or measurements than a network of a filled config has parameters. Imports torch."""
    section, federation = as_mapping(config.get(EIGENSPACES)), as_mapping(config.get("federation"))
    lines: list[str] = []
    for dataset, settings in section.get("datasets", {}).items():
        for network in settings["networks"]:
            p = count_parameters(dataset, network, section["loss"])
            name = f"{network['name']} of width {network['width']:g} on {dataset}"
            lines += _beyond_parameters(with_dataset(section, dataset), name, p)
    if section.get("trainers"):
        for dataset, network, loss in product(federation["datasets"], federation["networks"], federation["losses"]):
            p = count_parameters(dataset, network, loss)
            name = f"{network['name']} of width {network['width']:g} on {dataset} (federation)"
            lines += _beyond_parameters(section, name, p)
    return lines


def _beyond_parameters(section: Mapping[str, Any], network: str, p: int) -> Iterator[str]:
    pairs, measurements = section["pairs"], section["measurements"]
    count = pairs if pairs >= 1 else max(1, round(pairs * p))
    if count >= p:
        yield (
            f"{EIGENSPACES}.pairs: {pairs} eigenpairs asked for, {network} has {p} parameters; allowed: fewer than {p} "
            "(a mask of all of them tells nothing); or a wider network"
        )
    elif section["methods"] == ["exact"] and p > section["exact_up_to"]:
        yield (
            f"{EIGENSPACES}.methods: [exact] given, {network} has {p} parameters and exact_up_to is "
            f"{section['exact_up_to']}; allowed: a larger exact_up_to, or sketched or lanczos among the methods"
        )
    elif "sketched" in section["methods"] and section["passes"] > (measurements or default_measurements(count)):
        yield (
            f"{EIGENSPACES}.passes: {section['passes']} given, {network} takes "
            f"{measurements or default_measurements(count)} measurements; allowed: at most as many, 4 is usual"
        )
    elif "sketched" in section["methods"] and measurements > p:
        yield (
            f"{EIGENSPACES}.measurements: {measurements} given, {network} has {p} parameters; allowed: at most {p}, or "
            "0 for twice the pairs and 10 more"
        )
    elif "sketched" in section["methods"] and not measurements and default_measurements(count) > p:
        instead = f"at most {default_pairs(p)} pairs, " if p > 12 else ""
        yield (
            f"{EIGENSPACES}.pairs: {pairs} need {default_measurements(count)} measurements, {network} has {p} "
            f"parameters; allowed: {instead}fewer measurements, or methods: [exact] up to "
            f"exact_up_to, {section['exact_up_to']}"
        )


def kept_steps(section: Mapping[str, Any]) -> list[int]:
    """Steps after which weights are kept: those that are looked at, and those whose masks are compared."""
    return sorted({*section["checkpoint_steps"], *section["stability_steps"]})
