"""The floors of the package: each imports only from floors below it. docs/architecture.md has the same table."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "src/hessketch"
# From the ground up; floors of one row stand side by side and do not know each other. `base` are modules beside the
# folders, less `cli` (all programs' flags) and those that check a profile, which know what can be asked for: `config`.
ROWS = [
    ["base"],
    ["linalg"],
    ["data", "networks", "cli"],
    ["curvature"],
    ["training", "federated", "dynamics", "eigenspaces", "landscape"],
    ["config"],
    ["studies", "planning"],
    ["figures"],
    ["claims"],
    ["report"],
    ["commands"],
]
HEIGHTS = {floor: height for height, row in enumerate(ROWS) for floor in row}


def floor_of(module: str) -> str:
    """Floor of a module given below the package, dotted: `linalg.krylov`, `records`."""
    first = module.split(".")[0]
    if (PACKAGE / first).is_dir():
        return first
    return (
        "commands"
        if first in ("__main__", "__init__")
        else "cli"
        if first == "cli"
        else "config"
        if "config" in first
        else "base"
    )


def imported(source: str) -> Iterator[str]:
    """Modules of the package that a source imports, dotted, below the package; inside of functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "hessketch":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hessketch."):
            yield node.module.removeprefix("hessketch.")
        elif isinstance(node, ast.Import):
            yield from (n.name.removeprefix("hessketch.") for n in node.names if n.name.startswith("hessketch."))


def wrong(module: str, source: str) -> list[str]:
    """What a module imports from a floor that is not below its own."""
    own = floor_of(module)
    return [f"{module} ({own}) imports {other}" for other in imported(source)
            if floor_of(other) != own and HEIGHTS[floor_of(other)] >= HEIGHTS[own]]  # fmt: skip


def test_a_floor_imports_only_from_floors_below_it():
    files = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    assert len(files) > 250
    assert [line for module, path in sorted(files.items()) for line in wrong(module, path.read_text())] == []


def test_the_page_on_architecture_has_the_same_floors():
    page = (PACKAGE.parents[1] / "docs/architecture.md").read_text()
    table = page[page.index("| floor |") :].split("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines()[2:]]
    assert rows[::-1] == ROWS


def test_every_folder_of_the_package_has_a_floor():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(HEIGHTS) - {"base", "cli", "config"}


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("linalg.krylov", "from hessketch.curvature.operators import hessian", 1),
        ("data.catalog", "def f():\n    from hessketch.networks import registry", 1),
        ("records", "import hessketch.linalg.vectors", 1),
        ("config", "from hessketch import records\nfrom hessketch.cli import main", 0),
        ("figures.style", "from hessketch.studies.spectra import select", 0),
    ],
)
def test_an_import_from_above_or_beside_is_found(module, source, found):
    assert len(wrong(module, source)) == found
