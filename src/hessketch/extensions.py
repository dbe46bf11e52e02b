"""What a user's own files add to the package by name: networks, data sets, federated methods, operators, claims.

An extension is a Python file that calls `register_network`, `register_dataset`, `register_method`,
`register_operator` or `register_claim`; docs/adding/ has an example of each. It runs only where the user's config (key
`extensions`), flag (--extension) or environment (HESSKETCH_EXTENSIONS) names it, or their own Python imports it: no
checkpoint, table or record can ask for one. Imports neither torch nor pandas.
"""

import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hessketch.errors import InputError
from hessketch.ledger import file_digest

VARIABLE = "HESSKETCH_EXTENSIONS"
"""Environment variable with the files of extensions, joined as in PATH: how a job is told of them."""
KINDS = ("network", "dataset", "method", "operator", "claim")
HINT = ", or one that an extension registers"

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")  # a part of paths, labels and file names
_registered: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
_makers: dict[tuple[str, str], tuple[str, str]] = {}  # kind and name to module and name of the function behind it
_digests: dict[str, str] = {}  # absolute path of a file that registered something to its SHA-256
_kinds: dict[str, set[str]] = {}  # absolute path of a file to the kinds of what it has registered

Result = TypeVar("Result")


def registered(kind: str) -> Mapping[str, Any]:
    """What extensions have registered of one of KINDS, by name."""
    return _registered[kind]


def register(kind: str, name: str, thing: Any, taken: Iterable[str], maker: Callable[..., Any]) -> None:
    """Adds a thing by name; `taken` are the package's own names, `maker` the user's function behind it.

    The same function may register again, as when a notebook's cell runs twice. Raises InputError for a name that is not
    made of lower-case letters, digits and underscores, or is taken.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{kind} {name!r}: allowed are names of lower-case letters, digits and underscores")
    origin = (maker.__module__, getattr(maker, "__qualname__", name))
    if name in taken or _makers.setdefault((kind, name), origin) != origin:
        raise InputError(f"{kind} {name!r} is there already; choose another name")
    _registered[kind][name] = thing
    file = getattr(sys.modules.get(maker.__module__), "__file__", None)
    if file:
        _digests.setdefault(os.path.abspath(file), file_digest(file))
        _kinds.setdefault(os.path.abspath(file), set()).add(kind)


def kinds_of(file: str | Path) -> set[str]:
    """Which of KINDS a file has registered; empty where it has only been imported by another, or not at all."""
    return _kinds.get(os.path.abspath(file), set())


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes an argument of this name."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def call_with(function: Callable[..., Result], arguments: Mapping[str, Any]) -> Result:
    """The function's result for those of the arguments that it takes."""
    return function(**{name: value for name, value in arguments.items() if takes(function, name)})


def require_takes(what: str, function: Callable[..., Any], allowed: Iterable[str], needed: Iterable[str] = ()) -> None:
    """Raises InputError for what is no function, needs an argument that is not allowed, or lacks a needed one."""
    allowed, needed = list(allowed), list(needed)
    words = f"allowed: a function of {', '.join(allowed)}" + (f", at least {', '.join(needed)}" if needed else "")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # nothing to call, or a function without a signature
        raise InputError(f"{what}: {function!r} given; {words}") from None
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    foreign = [name for name in required if name not in allowed]
    missing = [name for name in needed if not takes(function, name)]
    if foreign or missing:
        which = f"asks for {', '.join(foreign)}" if foreign else f"does not take {', '.join(missing)}"
        raise InputError(f"{what}: its function {which}; {words}")


def load_extensions(files: Iterable[str | Path]) -> None:
    """Runs files of extensions, each once a process; raises InputError for one that is missing or fails."""
    for file in map(Path, files):
        path = os.path.abspath(file)
        if path in _digests:
            continue
        if file.suffix != ".py" or not file.is_file():
            raise InputError(f"extension {file}: no Python file is there; allowed: a path such as my_things.py")
        _digests[path] = file_digest(file)
        try:
            _run(file.stem, path)
        except Exception as error:
            del _digests[path]
            what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            raise InputError(f"extension {file}: {what}") from error


def load_named() -> None:
    """Runs the extensions that the environment variable names; see `load_extensions`."""
    load_extensions(filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)))


def tell_jobs(files: Iterable[str | Path]) -> None:
    """Names these extensions, and no others, to the processes that this one starts."""
    os.environ[VARIABLE] = os.pathsep.join(os.path.abspath(file) for file in files)


def extension_digests() -> dict[str, str]:
    """SHA-256 of each file that has registered something here, as it was then, by absolute path."""
    return dict(sorted(_digests.items()))


def _run(name: str, path: str) -> None:
    """Imports a file as a module of its stem's name, so that `import my_things` elsewhere finds the same one."""
    found = sys.modules.get(name) or importlib.util.find_spec(name)  # one that is installed, imported or not
    there = getattr(found, "__file__", None) or getattr(found, "origin", None)
    if found and (there is None or os.path.abspath(there) != path):
        raise InputError(f"a module {name} is there already; rename the file")
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: is no Python file; allowed: files that end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
