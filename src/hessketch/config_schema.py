"""A config against its schema: each mistake in words, defaults filled."""

import math
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from hessketch.errors import nearest
from hessketch.extensions import HINT, registered
from hessketch.jsonschema_import import Draft202012Validator, ValidationError, validators
from hessketch.trainers import named_methods


def as_mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: what is of the wrong type has been told already."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def schema_problems(config: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """What a config has against its schema, one line each, in the order of the keys."""
    validator = _Validator(_with_registered(schema))
    errors = sorted(validator.iter_errors(config), key=lambda e: [str(p) for p in e.absolute_path])
    return [line for error in errors for line in _messages(error)]


def _with_registered(part: Any) -> Any:
    """A copy of a schema whose lists of names have those that extensions have registered too.

    Which list is which the keyword `registered` says: a kind of `extensions.KINDS`.
    """
    if isinstance(part, list):
        return [_with_registered(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    copy = {key: _with_registered(value) for key, value in part.items()}
    if isinstance(part.get("registered"), str):
        own = named_methods() if part["registered"] == "method" else registered(part["registered"])
        copy["enum"] = list(dict.fromkeys([*part["enum"], *own]))
    return copy


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


def _key(path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "config"


def allowed(schema: Mapping[str, Any]) -> str:
    """What a schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return f"the word {schema['const']}" if isinstance(schema["const"], str) else str(schema["const"])
    kinds = {"integer": "a whole number", "number": "a number", "array": "a list", "object": "a mapping"}
    kinds |= {"string": "text", "boolean": "true or false"}
    words = [kinds.get(schema.get("type", ""), "")]
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
    known = _schema_of(error).get("properties", {})
    for name in as_mapping(error.instance):
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


def _pattern_problems(
    validator: object, pattern: str, value: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """As JSON Schema means it: Python's `$` would also let a final newline pass, into a folder's name for one."""
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


# JSON Schema takes 3.0 for a whole number and knows no infinity; the programs that the numbers go to differ.
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole).redefine("number", _is_number)
_Validator = validators.extend(Draft202012Validator, {"pattern": _pattern_problems}, type_checker=_TYPES)


def _schema_of(error: ValidationError) -> Mapping[str, Any]:
    """The part of the schema that was not met; `true` and `false`, which would do too, stand nowhere in ours."""
    return as_mapping(error.schema)


def _messages(error: ValidationError) -> Iterator[str]:
    """One jsonschema error as `key: what is wrong; what is allowed; nearest valid name`."""
    where, value, schema = _key(error.absolute_path), error.instance, _schema_of(error)
    if error.validator == "additionalProperties":
        yield from _unknown_keys(error)
    elif error.validator == "required":
        for name in as_list(error.validator_value):
            if name not in as_mapping(value):
                sub = schema["properties"][name]
                yield f"{_key([*error.absolute_path, name])}: missing; allowed: {allowed(sub)}"
    elif error.validator in ("minItems", "minProperties"):
        yield f"{where}: empty; allowed: {allowed(schema)}"
    elif error.validator == "uniqueItems":
        yield f"{where}: holds an entry twice; allowed: each entry once"
    elif error.validator in ("type", "anyOf"):
        yield f"{where}: {_wrong_type(value, schema)}; allowed: {allowed(schema)}"
    elif error.validator == "enum":
        words = allowed(schema) + (HINT if "registered" in schema else "")
        yield f"{where}: {value!r} is unknown; allowed: {words}{nearest(value, schema['enum'])}"
    else:
        yield f"{where}: {value!r} given; allowed: {allowed(schema)}"
