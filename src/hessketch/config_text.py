"""What a profile's text says that reading it would not show: keys given twice, of which YAML keeps the last."""

from collections.abc import Iterator
from pathlib import Path

import yaml


def repeated_keys(file: str | Path) -> list[str]:
    """One line for each key that a mapping of a YAML file has twice. Raises OSError, and YAMLError for no YAML."""
    root = yaml.compose(Path(file).read_text(), Loader=yaml.SafeLoader)
    return [f"{problem} of {file}; allowed: once; remove one" for problem in _repeated(root, "")]


def _repeated(node: yaml.Node | None, where: str) -> Iterator[str]:
    if isinstance(node, yaml.SequenceNode):
        for place, entry in enumerate(node.value):
            yield from _repeated(entry, f"{where}[{place}]")
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        name = f"{where}.{key.value}" if where else str(key.value)
        same, line = (key.tag, str(key.value)), key.start_mark.line + 1
        if same in lines:
            yield f"{name}: given twice, in lines {lines[same]} and {line}"
        lines[same] = line
        yield from _repeated(value, name)
