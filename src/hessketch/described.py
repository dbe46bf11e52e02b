"""What the dataclasses of settings share: fields with their help, and values refused all at once."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from hessketch.errors import InputError, nearest


def described(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field with the help of its command-line flag and, for words, the allowed ones."""
    return field(default=default, metadata={"help": text, "choices": choices})


def require_allowed(settings: Any, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Raises InputError naming every field whose rule (holds, what is allowed) fails or whose word is no choice."""
    problems = [
        f"{key}: {getattr(settings, key)!r} given; allowed: {allowed}" for key, (ok, allowed) in rules.items() if not ok
    ]
    for key, entry in settings.__dataclass_fields__.items():
        choices, given = entry.metadata["choices"], getattr(settings, key)
        if choices and given not in choices:
            problems.append(f"{key}: {given!r} is unknown; allowed: {', '.join(choices)}{nearest(given, choices)}")
    if problems:
        raise InputError("; ".join(problems))
