"""The page that describes every key of a profile, made from the schema and the profiles themselves."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hessketch.config_schema import allowed

_HEAD = """# Configuration

Every key of a profile, made from [config/schema.yaml](../config/schema.yaml) by `make docs`: what is wrong here is
wrong there. A config is checked against it before any job starts, and all mistakes are told at once.

`NAME` stands for a name of yours or of the package (a data set), `[]` for each entry of a list. A key without a default
must be given, or, where its meaning says so, has one of the method's own. The last column has the profiles that set a
key: {numbers}.
"""
_COLUMNS = "| key | meaning | allowed | default | set in |\n| --- | --- | --- | --- | --- |"


@dataclass(frozen=True)
class Key:
    """One key: `parts` of its path (NAME for a name of one's own, a part with [] for entries of a list), its schema."""

    parts: tuple[str, ...]
    schema: Mapping[str, Any]

    @property
    def path(self) -> str:
        """As 'datasets.NAME.epochs' or 'networks[].width'."""
        return ".".join(self.parts)

    def is_set(self, config: Any) -> bool:
        """Whether a profile, as written, has the key anywhere."""
        found = [config]
        for part in self.parts:
            name = part.removesuffix("[]")
            if name == "NAME":
                found = [value for each in found if isinstance(each, dict) for value in each.values()]
            else:
                found = [each[name] for each in found if isinstance(each, dict) and name in each]
            if part.endswith("[]"):
                found = [entry for each in found for entry in each]
        return bool(found)


def keys_of(schema: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key of a JSON Schema of nested mappings and lists, a section before what is in it."""
    for name, part in schema.get("properties", {}).items():
        here = (*above, name)
        yield Key(here, part)
        yield from keys_of(part, here)
        extra, entries = part.get("additionalProperties"), part.get("items", {})
        if isinstance(extra, Mapping):
            yield from keys_of(extra, (*here, "NAME"))
        yield from keys_of(entries, (*above, f"{name}[]"))


def configuration_page(schema: Mapping[str, Any], profiles: Mapping[str, Mapping[str, Any]]) -> str:
    """The Markdown page: a table of the keys that stand alone, then one for each section.

    `profiles` maps names to configs as written, without defaults.
    """
    keys = list(keys_of(schema))
    sections = {key.parts[0]: key for key in keys if len(key.parts) == 1 and _is_section(key.schema)}
    alone = [key for key in keys if key.parts[0].removesuffix("[]") not in sections]
    numbers = ", ".join(f"{number} `{name}`" for number, name in enumerate(profiles, 1))
    lines = [_HEAD.format(numbers=numbers), _COLUMNS, *(_row(key, profiles) for key in alone)]
    for name, section in sections.items():
        lines += [
            f"\n## {name}\n",
            f"{section.schema['description']} Set in: {_numbers(section, profiles)}.\n",
            _COLUMNS,
        ]
        inside = [key for key in keys if len(key.parts) > 1 and key.parts[0].removesuffix("[]") == name]
        lines += [_row(key, profiles) for key in inside]
    return "\n".join(lines) + "\n"


def _is_section(schema: Mapping[str, Any]) -> bool:
    """Whether a key holds keys of its own, itself or in the entries of its list."""
    return schema.get("type") == "object" or "properties" in schema.get("items", {})


def _numbers(key: Key, profiles: Mapping[str, Mapping[str, Any]]) -> str:
    setting = [str(number) for number, config in enumerate(profiles.values(), 1) if key.is_set(config)]
    return "all" if len(setting) == len(profiles) else ", ".join(setting) or "none"


def _row(key: Key, profiles: Mapping[str, Mapping[str, Any]]) -> str:
    schema = key.schema
    default = f"`{_as_yaml(schema['default'])}`" if "default" in schema else ""
    below = ".".join(key.parts[1:]) or key.path
    cells = (f"`{below}`", schema.get("description", ""), _values(schema), default, _numbers(key, profiles))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _values(schema: Mapping[str, Any]) -> str:
    """What is allowed, in words; of a list of names what each may be."""
    entries = schema.get("items", {})
    if schema.get("type") == "array" and "properties" not in entries:
        return f"a list; each {_values(entries)}"
    text = allowed({**schema, "pattern": f"`{schema['pattern']}`"} if "pattern" in schema else schema)
    return f"{text}, or of an extension" if "registered" in schema else text


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
