import re
from pathlib import Path

import pytest

from hessketch.errors import InputError
from hessketch.report.captions import caption_of

FILES = sorted((Path(__file__).parents[3] / "workflow/report").glob("*.rst"))
STUDIES = [file for file in FILES if not file.stem.endswith("_notebook") and file.stem not in ("workflow", "table1")]


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_caption_of_a_study_is_sound_and_of_its_own_figure(file):
    names = re.findall(r'figure == "(\w+)"', file.read_text())
    captions = {name: caption_of(file, figure=name, folder="x") for name in names}
    assert names and all("<p>" in caption.html and caption.first_sentence for caption in captions.values())
    assert len({caption.first_sentence for caption in captions.values()}) == len(names)


def test_a_caption_becomes_paragraphs_and_its_first_sentence_has_no_marks(tmp_path):
    file = tmp_path / "a.rst"
    file.write_text(
        "{% if snakemake.wildcards.figure == 'a' %}The **train** Hessian (n = 2.5). Two ``runs``.\n\nMore.{% endif %}"
    )
    caption = caption_of(file, figure="a", folder="b")
    assert caption.first_sentence == "The train Hessian (n = 2.5)."
    assert caption.html.count("<p>") == 2 and "<strong>train</strong>" in caption.html
    assert caption_of(tmp_path / "none.rst", figure="a", folder="b").html == ""


def test_a_name_in_a_caption_is_escaped(tmp_path):
    file = tmp_path / "a.rst"
    file.write_text("Of {{ snakemake.wildcards.folder }}.")
    assert "<script>" not in caption_of(file, folder="<script>alert(1)</script>", figure="a").html


@pytest.mark.parametrize(
    "text", ["{% if %}", "A `broken <link.\n\n.. nothing::\n\n   x", ".. raw:: html\n\n   <b>x</b>"]
)
def test_a_caption_that_cannot_be_shown_is_named(tmp_path, text):
    (tmp_path / "a.rst").write_text(text)
    with pytest.raises(InputError, match=r"a\.rst.*caption of x/y"):
        caption_of(tmp_path / "a.rst", folder="x", figure="y")
