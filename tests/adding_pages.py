"""The code of the pages of docs/adding/, taken out of them: what a reader would copy."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs/adding"
PAGES = ("dataset", "network", "compressor", "operator", "study")
_FILE = re.compile(r"^`([\w.]+)`[^\n]*:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_BLOCK = r"^```{}\n(.*?)^```"


def files(page: str) -> dict[str, str]:
    """Name to content of each file that a page has the reader write."""
    return dict(_FILE.findall(_text(page)))


def blocks(page: str, language: str) -> list[str]:
    """The page's other blocks of a language."""
    found = re.findall(_BLOCK.format(language), _text(page), re.MULTILINE | re.DOTALL)
    return [block for block in found if block not in files(page).values()]


def commands(page: str) -> list[list[str]]:
    """The words of each command of hessketch."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    assert lines and all(line.startswith("python -m hessketch ") for line in lines)
    return [line.split()[3:] for line in lines]


def write_files(page: str, folder: Path) -> None:
    """Writes the page's files into a folder."""
    found = files(page)
    assert found
    for name, content in found.items():
        (folder / name).write_text(content)


def _text(page: str) -> str:
    return (FOLDER / f"{page}.md").read_text()
