"""The sections `over_parametrized`, `basins` and `outlier_hierarchy` of a config: their runs, and what is wrong.

Imports neither torch nor pandas, but for `exact_problems`, which builds networks to count their parameters.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from hessketch.config_data import dataset_problems, has_batch_norm, network_problems
from hessketch.config_runs import batch_problems, beyond, is_whole, sgd_run, steps_of_sgd, training_examples
from hessketch.config_schema import as_list, as_mapping
from hessketch.data.catalog import describe
from hessketch.federation_config import count_parameters
from hessketch.runs import Run
from hessketch.trainers import Trainer

OVER_PARAMETRIZED, BASINS, HIERARCHY = "over_parametrized", "basins", "outlier_hierarchy"


def over_parametrized_runs_of(config: Mapping[str, Any]) -> list[Run]:
    """Every run of a filled config's section `over_parametrized`; none without it."""
    section = config.get(OVER_PARAMETRIZED)
    if section is None:
        return []
    return _runs(section, [Trainer("sgd", batch_size=steps_of_sgd(section["batch_size"]))])


def basin_runs_of(config: Mapping[str, Any]) -> list[Run]:
    """Every run of a filled config's section `basins`: large batches, small ones, and the one then the other."""
    section = config.get(BASINS)
    if section is None:
        return []
    large, small = (steps_of_sgd(section[key]) for key in ("large_batch", "small_batch"))
    trainers = [Trainer("sgd", batch_size=large), Trainer("sgd", batch_size=small)]
    return _runs(section, [*trainers, Trainer("sgd", batch_size=large, later_batch_size=small)])


def _runs(section: Mapping[str, Any], trainers: list[Trainer]) -> list[Run]:
    return [
        sgd_run(
            network,
            trainer,
            dataset=dataset,
            label_noise=0,
            examples_per_class=settings["examples_per_class"],
            loss=section["loss"],
            learning_rate=settings["learning_rate"],
            seed=seed,
        )
        for dataset, settings in section["datasets"].items()
        for network, trainer, seed in product(settings["networks"], trainers, section["seeds"])
    ]


def is_of_hierarchy(config: Mapping[str, Any], run: Run) -> bool:
    """Whether the outliers of a trained network of the full-spectrum study are decomposed."""
    section = config.get(HIERARCHY)
    return (
        section is not None
        and run.loss == "cross_entropy"
        and run.label_noise == 0
        and ("all" if run.examples_per_class is None else run.examples_per_class) in section["examples_per_class"]
    )


def landscape_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What a schema cannot say of the three sections, their defaults filled: one line a problem."""
    if config.get(OVER_PARAMETRIZED) is not None:
        section = as_mapping(config[OVER_PARAMETRIZED])
        yield from beyond(
            f"{OVER_PARAMETRIZED}.checkpoint_steps", section.get("checkpoint_steps"), section.get("steps"), "steps"
        )
        yield from _followed_problems(OVER_PARAMETRIZED, section, ["batch_size"])
    if config.get(BASINS) is not None:
        yield from _basin_problems(as_mapping(config[BASINS]))
    if config.get(HIERARCHY) is not None:
        yield from _hierarchy_problems(config, as_mapping(config[HIERARCHY]))


def _followed_problems(name: str, section: Mapping[str, Any], batches: list[str]) -> Iterator[str]:
    for dataset, settings in as_mapping(section.get("datasets")).items():
        dataset, settings = str(dataset), as_mapping(settings)
        networks = [as_mapping(network) for network in as_list(settings.get("networks"))]
        yield from dataset_problems(f"{name}.datasets", dataset, settings)
        yield from network_problems(f"{name}.datasets.{dataset}.networks", networks, [dataset])
        n = training_examples(dataset, settings.get("examples_per_class"))
        for key in batches:
            yield from batch_problems(f"{name}.{key}", [section.get(key)], dataset, n, networks)
        if name == BASINS and has_batch_norm(networks):
            yield (
                f"{name}.datasets.{dataset}.networks: norm batch given (the default); allowed here: none, group, since "
                "between two networks the running statistics are those of neither"
            )


def _basin_problems(section: Mapping[str, Any]) -> Iterator[str]:
    yield from _followed_problems(BASINS, section, ["large_batch", "small_batch"])
    large, small, steps = (section.get(key) for key in ("large_batch", "small_batch", "steps"))
    if is_whole(small) and is_whole(large) and small >= large:
        yield f"{BASINS}.small_batch: {small} given; allowed: less than the large_batch, {large}"
    switch = section.get("switch_step")
    if is_whole(switch) and is_whole(steps) and switch >= steps:
        yield f"{BASINS}.switch_step: {switch} given; allowed: 1 to {steps - 1}, before the last of the {steps} steps"


def _hierarchy_problems(config: Mapping[str, Any], section: Mapping[str, Any]) -> Iterator[str]:
    """Sizes that no data set is trained with, or no split of the training examples to hold them against."""
    trained = [as_mapping(settings) for settings in as_mapping(config.get("datasets")).values()]
    sizes = {str(size) for settings in trained for size in as_list(settings.get("examples_per_class"))}
    for size in as_list(section.get("examples_per_class")):
        if sizes and str(size) not in sizes:
            yield (
                f"{HIERARCHY}.examples_per_class: no data set is trained with {size}; allowed: "
                f"{', '.join(sorted(sizes, key=lambda size: (len(size), size)))}"
            )
    if "train" not in as_list(as_mapping(config.get("spectrum")).get("splits", ["train"])):
        yield f"{HIERARCHY}: needs the spectra of the training examples; add train to spectrum.splits"
    losses = as_list(config.get("losses"))
    if losses and "cross_entropy" not in losses:
        yield f"{HIERARCHY}: is of cross-entropy; add cross_entropy to losses, or remove the section"


def exact_problems(config: Mapping[str, Any]) -> list[str]:
    """Networks of a filled config that are too large to be decomposed whole, or too small. Imports torch."""
    section = as_mapping(config.get(OVER_PARAMETRIZED))
    lines = []
    for dataset, settings in section.get("datasets", {}).items():
        for network in settings["networks"]:
            p, most = count_parameters(dataset, network, section["loss"]), section["max_parameters"]
            name = f"{network['name']} of width {network['width']:g} on {dataset}"
            if p > most:
                lines.append(
                    f"{OVER_PARAMETRIZED}.datasets.{dataset}.networks: {name} has {p} parameters; allowed: "
                    f"max_parameters, {most}, since matrices are formed whole; choose a smaller width or smaller images"
                )
            top = section["top"] or describe(dataset).classes + 1
            if top > p:
                lines.append(f"{OVER_PARAMETRIZED}.top: {top} given, {name} has {p} parameters; allowed: at most {p}")
    return lines
