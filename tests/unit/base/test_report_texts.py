"""The captions of the workflow's report are sound reStructuredText, whichever figure they speak of."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils.core import publish_string
from jinja2 import Template

TEXTS = sorted((Path(__file__).parents[3] / "workflow/report").glob("*.rst"))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_caption_of_each_figure_has_words_and_no_markup_that_docutils_warns_of(path):
    template = path.read_text()
    figures = re.findall(r'figure == "(\w+)"', template) or ["any"]
    assert len(set(figures)) == len(figures)
    for figure in figures:
        file = f"{figure}-digits-mlp-none-w1" if 'split("-")' in template else figure
        words = {"figure": file, "folder": "cross_entropy"}
        text = Template(template).render(snakemake=SimpleNamespace(wildcards=SimpleNamespace(**words)))
        assert len(text.split()) > 10
        # Raises SystemMessage for a warning or an error.
        publish_string(text, settings_overrides={"halt_level": 2, "report_level": 5})
