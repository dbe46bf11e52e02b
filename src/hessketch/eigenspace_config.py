"""The section `eigenspaces` of a config: what is wrong with it, and the runs it asks for.

Imports neither torch nor pandas, but for `eigenpair_problems`, which builds networks to count their parameters.
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
from hessketch.errors import InputError
from hessketch.federation_config import count_parameters
from hessketch.runs import Run
from hessketch.trainers import Trainer

EIGENSPACES = "eigenspaces"


def eigenspace_runs_of(config: Mapping[str, Any]) -> list[Run]:
    """Every run of a filled config's section `eigenspaces`: data set, network and seed; none without it."""
    section = config.get(EIGENSPACES)
    if section is None:
        return []
    return [
        sgd_run(
            network,
            Trainer("sgd", batch_size=steps_of_sgd(section["batch_size"])),
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
    for key in ("checkpoint_steps", "stability_steps"):
        yield from beyond(f"{EIGENSPACES}.{key}", section.get(key), section.get("steps"), "steps")
    for name, settings in as_mapping(section.get("datasets")).items():
        yield from _dataset_problems(section, str(name), as_mapping(settings))
    pairs, measurements = section.get("pairs"), section.get("measurements")
    if is_whole(pairs) and is_whole(measurements) and 0 < measurements < pairs:
        yield (
            f"{EIGENSPACES}.measurements: {measurements} given for {pairs} pairs; allowed: at least as many as pairs, "
            "or 0 for twice the pairs and 10 more"
        )
    yield from federated_problems(f"{EIGENSPACES}.trainers", section.get("trainers"), federation)


def _dataset_problems(section: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> Iterator[str]:
    where = f"{EIGENSPACES}.datasets.{name}"
    networks = [as_mapping(network) for network in as_list(settings.get("networks"))]
    yield from dataset_problems(f"{EIGENSPACES}.datasets", name, settings)
    yield from network_problems(f"{where}.networks", networks, [name])
    n = training_examples(name, settings.get("examples_per_class"))
    yield from batch_problems(f"{EIGENSPACES}.batch_size", [section.get("batch_size")], name, n, networks)
    if has_batch_norm(networks) and n == 1:
        yield f"{where}.examples_per_class: one example has no variance; write norm: none"
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
    section = config.get(EIGENSPACES)
    lines = []
    for dataset, settings in section["datasets"].items() if section else ():
        for network in settings["networks"]:
            p = count_parameters(dataset, network, section["loss"])
            lines += _beyond_parameters(section, f"{network['name']} of width {network['width']:g} on {dataset}", p)
    federation = config.get("federation")
    if section and section["trainers"]:
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
        return
    sketched = measurements or 2 * count + 10
    if "sketched" in section["methods"] and sketched > p:
        most = (p - 10) // 2
        yield (
            f"{EIGENSPACES}.pairs: {pairs} need {sketched} measurements, {network} has {p} parameters; allowed: at "
            f"most {most} pairs, or methods: [exact]"
        )


def kept_steps(section: Mapping[str, Any]) -> list[int]:
    """Steps after which weights are kept: those that are looked at, and those whose masks are compared."""
    return sorted({*section["checkpoint_steps"], *section["stability_steps"]})
