import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hessketch.errors import InputError
from hessketch.report.pictures import groups_of, pictures_of
from hessketch.report.words import Commands

CAPTIONS = Path(__file__).parents[3] / "workflow/report"


def decoded(picture):
    content = base64.b64decode(picture.data.removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int), len(content)


def test_an_embedded_figure_is_nearly_the_drawn_one_white_where_it_was_and_smaller(reported):
    folder = reported.sources.figures / "basins"
    for picture in pictures_of("basins", folder, CAPTIONS, Commands()):
        path = folder / f"{picture.name}.png"
        drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
        shown, size = decoded(picture)
        assert shown.shape == drawn.shape == (picture.height, picture.width, 3)
        assert np.abs(shown - drawn).mean() < 1 and np.abs(shown - drawn).max() < 64
        assert (shown[(drawn == 255).all(axis=2)] == 255).all()
        assert size < path.stat().st_size / 2


def test_the_words_for_who_cannot_see_a_figure_say_what_it_is_and_what_its_axes_are(reported):
    picture = pictures_of("basins", reported.sources.figures / "basins", CAPTIONS, Commands())[0]
    assert picture.title == "Barriers" and picture.subject == "digits-mlp-none-w0.5"
    assert picture.alternative.startswith("Barriers, digits-mlp-none-w0.5. How high the training loss (left)")
    assert picture.alternative.endswith("Digits: loss of barriers against steps (logarithmic); lines.")


def test_figures_of_one_caption_stand_together(reported, tmp_path):
    drawn = (reported.sources.figures / "basins/digits-mlp-none-w0.5/line.png").read_bytes()
    for place in ("b/line", "a/path", "a/line"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / f"{place}.png").write_bytes(drawn)
    groups = groups_of(pictures_of("basins", tmp_path, CAPTIONS, Commands()))
    assert [[picture.name for picture in group.pictures] for group in groups] == [["a/line", "b/line"], ["a/path"]]
    assert [group.title for group in groups] == ["Line", "Path: a"]


def test_a_damaged_figure_is_named_and_a_study_without_figures_has_none(tmp_path):
    assert pictures_of("basins", tmp_path / "none", CAPTIONS, Commands()) == []
    (tmp_path / "a").mkdir()
    (tmp_path / "a/line.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a/line\.png.*delete it"):
        pictures_of("basins", tmp_path, CAPTIONS, Commands())
