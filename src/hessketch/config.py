"""A profile's config: every problem found at once, defaults filled, and the runs that it asks for.

Imports neither torch nor pandas: the workflow reads it each time a rule is planned.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from hessketch.config_data import dataset_problems, has_batch_norm, network_problems
from hessketch.config_schema import as_list, as_mapping, fill_defaults, schema_problems
from hessketch.data.catalog import describe, local_files
from hessketch.data.integrity import damaged_files
from hessketch.eigenspace_config import EIGENSPACES, eigenspace_problems, eigenspace_runs_of
from hessketch.errors import InputError
from hessketch.extensions import load_extensions, registered
from hessketch.federation_config import federated_runs_of, federation_problems
from hessketch.landscape_configs import (
    BASINS,
    OVER_PARAMETRIZED,
    basin_runs_of,
    landscape_problems,
    over_parametrized_runs_of,
)
from hessketch.records import unwritable
from hessketch.runs import Run
from hessketch.trajectory_configs import DYNAMICS, PREDICTOR, dynamics_runs_of, predictor_runs_of, trajectory_problems

# Keys of `spectrum` that one method alone knows, and its default where a check needs it.
METHOD_KEYS = {
    "fast": ("tolerance", "max_steps", "broadening", "basis_precision", "basis_place"),
    "paper": ("normalization_steps", "margin", "reorthogonalize", "deflation_iterations", "rayleigh_ritz"),
}
LANCZOS_STEPS = {"fast": 48, "paper": 256}
TRAJECTORIES = (PREDICTOR, DYNAMICS, EIGENSPACES, OVER_PARAMETRIZED, BASINS)  # sections whose runs keep their weights


def _spectrum_problems(spectrum: Mapping[str, Any]) -> Iterator[str]:
    method = spectrum.get("method", "fast")
    for other, keys in METHOD_KEYS.items():
        for key in keys:
            if other != method and key in spectrum:
                text = f"spectrum.{key}: belongs to method {other}, here is {method}"
                yield f"{text}; remove it, or write method: {other}"
    steps, points = spectrum.get("lanczos_steps", LANCZOS_STEPS.get(method)), spectrum.get("grid_points", 1024)
    if type(steps) is int and type(points) is int and points < steps:
        yield f"spectrum.grid_points: {points} given; allowed: at least as many as the {steps} lanczos_steps"
    own = [name for name in as_list(spectrum.get("operators")) if name in list(registered("operator"))]
    if own and spectrum.get("processes", 1) != 1:
        yield f"spectrum.processes: {spectrum['processes']} given; allowed with {', '.join(own)} of an extension: 1"
    most = spectrum.get("max_steps", steps)
    if type(steps) is int and type(most) is int and most < steps:
        yield f"spectrum.max_steps: {most} given; allowed: at least as many as the {steps} lanczos_steps"


def _structure_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What a schema cannot say: examples that do not exist, networks that do not fit, batches of one."""
    datasets, training = as_mapping(config.get("datasets")), as_mapping(config.get("training"))
    networks = [as_mapping(network) for network in as_list(config.get("networks"))]
    for name, settings in datasets.items():
        yield from dataset_problems("datasets", str(name), as_mapping(settings))
        yield from network_problems("networks", networks, [name])
        last = as_mapping(settings).get("epochs")
        for epoch in as_list(training.get("checkpoint_epochs")):
            if isinstance(epoch, int) and isinstance(last, int) and epoch > last:
                yield f"training.checkpoint_epochs: {epoch} is beyond the {last} epochs of datasets.{name}"
    if training.get("batch_size") == 1 and has_batch_norm(networks):
        yield "training.batch_size: 1 given; allowed with batch norm: at least 2 (one example has no variance)"
    yield from _spectrum_problems(as_mapping(config.get("spectrum")))


def _repeated_runs(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Runs that a sound config asks for twice: two spellings of one network, two rates alike to 12 digits."""
    filled = fill_defaults(config, schema)
    sections = [[*runs_of(filled), *federated_runs_of(filled)], *trajectory_runs_of(filled).values()]
    for path, count in (item for runs in sections for item in Counter(run.path for run in runs).items()):
        if count > 1:
            repeated = "network, rate, noise or reduction"
            yield f"config: asks {count} times for {path}; allowed: once; remove the repeated {repeated}"
            return


def extensions_of(config: Mapping[str, Any], suffix: str) -> list[str]:
    """Files of a config's extensions: those that end in `.py`, or in `.smk`."""
    return [file for file in as_list(config.get("extensions")) if isinstance(file, str) and file.endswith(suffix)]


def _extension_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Runs the extensions that a config names; a line for each that cannot be."""
    for file in extensions_of(config, ".py"):
        try:
            load_extensions([file])
        except InputError as error:
            yield f"extensions: {error}"
    for file in extensions_of(config, ".smk"):
        if not Path(file).is_file():
            yield f"extensions: {file}: no such file; allowed: a path from the folder where this command is given"


def config_problems(config: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Every problem of a config, one line each, in the order of the keys; empty when it is sound.

    Its extensions are run first: the names that they register may stand in it.
    """
    extensions = list(_extension_problems(config))
    filled = fill_defaults(config, schema)
    federation = federation_problems(as_mapping(filled.get("federation")))
    lines = [*extensions, *schema_problems(config, schema), *_structure_problems(config), *federation]
    lines += [*trajectory_problems(filled), *eigenspace_problems(filled), *landscape_problems(filled)]
    return list(dict.fromkeys(lines)) or list(_repeated_runs(config, schema))


def runs_of(config: Mapping[str, Any]) -> list[Run]:
    """Every run of plain SGD that a filled config asks for; `federation_config.federated_runs_of` has the others."""
    runs = []
    for (dataset, settings), network, loss, seed in product(
        config["datasets"].items(), config["networks"], config["losses"], config["seeds"]
    ):
        for noise, size, rate in product(
            settings["label_noise"], settings["examples_per_class"], settings["learning_rates"]
        ):
            runs.append(
                Run.of_network(
                    network,
                    dataset=dataset,
                    label_noise=noise,
                    examples_per_class=size,
                    loss=loss,
                    trainer="sgd",
                    learning_rate=rate,
                    seed=seed,
                )
            )
    return runs


def trajectory_runs_of(config: Mapping[str, Any]) -> dict[str, list[Run]]:
    """Runs of a filled config that keep their weights on the way, by the section that asks for them; not all may."""
    makers = (predictor_runs_of, dynamics_runs_of, eigenspace_runs_of, over_parametrized_runs_of, basin_runs_of)
    return {section: runs_of_section(config) for section, runs_of_section in zip(TRAJECTORIES, makers, strict=True)}


def datasets_of(config: Mapping[str, Any]) -> list[str]:
    """Names of all data sets that a config trains on, each once."""
    sections = [config, *(as_mapping(config.get(name)) for name in ("federation", *TRAJECTORIES))]
    return list(dict.fromkeys(name for section in sections for name in as_mapping(section.get("datasets"))))


def folder_problems(folders: list[str]) -> list[str]:
    """Folders of outputs that cannot be written, one line each."""
    reasons = {folder: unwritable(folder) for folder in folders}
    return [
        f"{folder}: cannot be written ({reason}); choose another working folder"
        for folder, reason in reasons.items()
        if reason
    ]


def data_problems(config: Mapping[str, Any], can_reach: Callable[[str], bool]) -> list[str]:
    """Data sets out of reach or damaged, one line each.

    `can_reach(url)` tells whether a download server answers; it is asked only for data that are not on the disk.
    """
    lines = []
    for name in dict.fromkeys(describe(name).base for name in datasets_of(config)):
        dataset = describe(name)
        if dataset.embedded:
            continue
        local = local_files(name, config["data_folder"])
        if local:
            lines += [f"data_folder: {damage}" for damage in damaged_files(name, local)]
            continue
        if can_reach(dataset.download_url):
            lines += folder_problems([config["data_folder"]])
            continue
        lines.append(
            f"data_folder: {config['data_folder']} holds no files of {name} ({', '.join(dataset.files)}) and "
            f"{dataset.download_host} cannot be reached; put the files there, or run once where there is a network"
        )
    return lines
