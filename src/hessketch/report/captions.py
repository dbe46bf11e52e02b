"""Captions as pages have them, from the reStructuredText files that Snakemake's own report reads too.

A file holds the captions of all figures of one study: a Jinja template that asks for `snakemake.wildcards`.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path

from docutils.core import publish_parts
from docutils.utils import SystemMessage
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

from hessketch.errors import InputError

_SETTINGS = {
    "doctitle_xform": False,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "embed_stylesheet": False,
    "report_level": 2,
}
_MARKS = re.compile(r"\*\*|``|\*(?=\w)|(?<=\w)\*")


@dataclass(frozen=True)
class Caption:
    html: Markup
    first_sentence: str


def caption_of(file: Path, **wildcards: str) -> Caption:
    """What a file of captions says of one figure; empty without the file.

    Raises InputError for a file that is no template, or a caption that is no sound reStructuredText.
    """
    if not file.is_file():
        return Caption(Markup(), "")
    try:
        template = SandboxedEnvironment().from_string(file.read_text())
        text = template.render(snakemake={"wildcards": wildcards}).strip()
        said = io.StringIO()
        parts = publish_parts(text, writer="html5", settings_overrides={**_SETTINGS, "warning_stream": said})
    except Exception as error:  # Jinja's and docutils' own classes, and whatever a template's expression raises
        why = str(error) if isinstance(error, SystemMessage) else repr(error)
        raise InputError(f"{file}: no caption of {_shown(wildcards)} ({why}); mend the file") from error
    if said.getvalue():
        raise InputError(f"{file}: the caption of {_shown(wildcards)} is no sound text ({said.getvalue().strip()})")
    return Caption(Markup(parts["body"]), _first_sentence(text))


def _shown(wildcards: dict[str, str]) -> str:
    return "/".join(wildcards.values())


def _first_sentence(text: str) -> str:
    paragraph = _MARKS.sub("", " ".join(text.split("\n\n")[0].split()))
    return re.split(r"(?<=[.?!])\s+(?=[A-Z])", paragraph)[0]
