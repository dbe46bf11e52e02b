"""A profile's config: every problem found at once, defaults filled, and the runs that it asks for.

Imports neither torch nor pandas: the workflow reads it each time a rule is planned.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from itertools import product
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from hessketch.data.catalog import describe, local_files
from hessketch.data.integrity import damaged_files
from hessketch.errors import InputError, nearest
from hessketch.records import unwritable
from hessketch.runs import Run


def _key(path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "config"


def _allowed(schema: Mapping[str, Any]) -> str:
    """What a schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(_allowed(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return f"the word {schema['const']}" if isinstance(schema["const"], str) else str(schema["const"])
    kinds = {"integer": "a whole number", "number": "a number", "array": "a list", "object": "a mapping"}
    words = [kinds.get(schema.get("type"), {"string": "text", "boolean": "true or false"}.get(schema.get("type"), ""))]
    limits = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
        "minItems": "with at least {} entry",
        "minProperties": "with at least {} entry",
        "pattern": "matching {}",
    }
    words += [text.format(schema[limit]) for limit, text in limits.items() if limit in schema]
    return " ".join(filter(None, words))


def _unknown_keys(error: ValidationError) -> Iterator[str]:
    known = error.schema.get("properties", {})
    for name in error.instance:
        if name not in known:
            where = _key([*error.absolute_path, name])
            yield f"{where}: unknown key; allowed: {', '.join(known)}{nearest(name, known)}"


def _wrong_type(value: Any, schema: Mapping[str, Any]) -> str:
    text = f"{value!r} is {type(value).__name__}"
    whole = any(option.get("type") == "integer" for option in (schema, *schema.get("anyOf", [])))
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value.strip()):
        return f"{text}: YAML reads {value} as text, write {_as_yaml(float(value), whole)}"
    if isinstance(value, float) and whole and value.is_integer():
        return f"{text}: write {_as_yaml(value, whole)}"
    return text


def _as_yaml(value: float, whole: bool) -> str:
    """A number as YAML reads it: an exponent needs a point before it and a sign after the e."""
    if whole and value.is_integer():
        return str(int(value))
    mantissa, e, exponent = repr(value).partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"


def _is_whole(checker: object, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: object, value: Any) -> bool:
    return _is_whole(checker, value) or (isinstance(value, float) and math.isfinite(value))


# JSON Schema takes 3.0 for a whole number and knows no infinity; the programs that the numbers go to differ.
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole).redefine("number", _is_number)
_Validator = validators.extend(Draft202012Validator, type_checker=_TYPES)


def _messages(error: ValidationError) -> Iterator[str]:
    """One jsonschema error as `key: what is wrong; what is allowed; nearest valid name`."""
    where, value = _key(error.absolute_path), error.instance
    if error.validator == "additionalProperties":
        yield from _unknown_keys(error)
    elif error.validator == "required":
        for name in error.validator_value:
            if name not in value:
                sub = error.schema["properties"][name]
                yield f"{_key([*error.absolute_path, name])}: missing; allowed: {_allowed(sub)}"
    elif error.validator in ("minItems", "minProperties"):
        yield f"{where}: empty; allowed: {_allowed(error.schema)}"
    elif error.validator == "uniqueItems":
        yield f"{where}: holds an entry twice; allowed: each entry once"
    elif error.validator in ("type", "anyOf"):
        yield f"{where}: {_wrong_type(value, error.schema)}; allowed: {_allowed(error.schema)}"
    elif error.validator == "enum":
        yield f"{where}: {value!r} is unknown; allowed: {_allowed(error.schema)}{nearest(value, error.schema['enum'])}"
    else:
        yield f"{where}: {value!r} given; allowed: {_allowed(error.schema)}"


def _dataset_problems(name: str, settings: Mapping[str, Any]) -> Iterator[str]:
    where = f"datasets.{name}"
    try:
        dataset = describe(name)
    except InputError as error:
        yield f"{where}: {error}"
        return
    for key, available in (
        ("examples_per_class", dataset.train_per_class),
        ("test_examples_per_class", dataset.test_per_class),
    ):
        given = settings.get(key)
        for size in given if isinstance(given, list) else [given]:
            if type(size) is int and available and size > min(available):
                yield f"{where}.{key}: {size} given, the smallest class has {min(available)}; allowed: at most that"


# Keys of `spectrum` that one method alone knows, and its default where a check needs it.
METHOD_KEYS = {
    "fast": ("tolerance", "max_steps", "broadening", "basis_precision", "basis_place"),
    "paper": ("normalization_steps", "margin", "reorthogonalize", "deflation_iterations", "rayleigh_ritz"),
}
LANCZOS_STEPS = {"fast": 48, "paper": 256}


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
    most = spectrum.get("max_steps", steps)
    if type(steps) is int and type(most) is int and most < steps:
        yield f"spectrum.max_steps: {most} given; allowed: at least as many as the {steps} lanczos_steps"


def _structure_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What a schema cannot say: examples that do not exist, networks that do not fit, batches of one."""
    datasets, training = _mapping(config.get("datasets")), _mapping(config.get("training"))
    networks = [_mapping(network) for network in _list(config.get("networks"))]
    for name, settings in datasets.items():
        yield from _dataset_problems(str(name), _mapping(settings))
        for network in networks:
            if str(name).startswith("clusters-") and network.get("name") in ("vgg11", "resnet18", "resnet18_smooth"):
                yield f"networks: {network['name']} needs images, {name} holds vectors; allowed there: mlp"
        last = _mapping(settings).get("epochs")
        for epoch in _list(training.get("checkpoint_epochs")):
            if isinstance(epoch, int) and isinstance(last, int) and epoch > last:
                yield f"training.checkpoint_epochs: {epoch} is beyond the {last} epochs of datasets.{name}"
    if training.get("batch_size") == 1 and any(network.get("norm", "batch") == "batch" for network in networks):
        yield "training.batch_size: 1 given; allowed with batch norm: at least 2 (one example has no variance)"
    yield from _spectrum_problems(_mapping(config.get("spectrum")))


def _repeated_runs(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Runs that a sound config asks for twice: two spellings of one network, two rates alike to 12 digits."""
    counts = Counter(run.path for run in runs_of(fill_defaults(config, schema)))
    for path, count in counts.items():
        if count > 1:
            yield f"config: asks {count} times for {path}; allowed: once; remove the repeated network, rate or noise"
            return


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def config_problems(config: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Every problem of a config, one line each, in the order of the keys; empty when it is sound."""
    errors = sorted(_Validator(schema).iter_errors(config), key=lambda e: [str(p) for p in e.absolute_path])
    lines = [line for error in errors for line in _messages(error)]
    lines += list(_structure_problems(config))
    return list(dict.fromkeys(lines)) or list(_repeated_runs(config, schema))


def fill_defaults(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a sound config with the schema's defaults in place of what it leaves out."""
    filled = deepcopy(dict(config))

    def fill(value: Any, part: Mapping[str, Any]) -> None:
        if isinstance(value, dict):
            for name, sub in part.get("properties", {}).items():
                if name not in value and "default" in sub:
                    value[name] = deepcopy(sub["default"])
            for name, item in value.items():
                extra = part.get("additionalProperties")
                fill(
                    item,
                    part.get("properties", {}).get(name) or (extra if isinstance(extra, Mapping) else {}),
                )
        elif isinstance(value, list):
            for item in value:
                fill(item, part.get("items", {}))

    fill(filled, schema)
    return filled


def runs_of(config: Mapping[str, Any]) -> list[Run]:
    """Every run that a filled config asks for."""
    runs = []
    for (dataset, settings), network, loss, seed in product(
        config["datasets"].items(), config["networks"], config["losses"], config["seeds"]
    ):
        for noise, size, rate in product(
            settings["label_noise"], settings["examples_per_class"], settings["learning_rates"]
        ):
            runs.append(
                Run(
                    dataset=dataset,
                    label_noise=noise,
                    examples_per_class=size,
                    network=network["name"],
                    norm=network["norm"],
                    width=network["width"],
                    loss=loss,
                    trainer="sgd",
                    learning_rate=rate,
                    seed=seed,
                )
            )
    return runs


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
    for name in _mapping(config.get("datasets")):
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
