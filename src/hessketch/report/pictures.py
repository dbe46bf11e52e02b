"""Figures as the report shows them: the image inside the page, its caption, its words for who cannot see it."""

import base64
import io
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import Image

from hessketch.errors import InputError
from hessketch.report.captions import Caption, caption_of
from hessketch.report.words import Commands, anchor, title

_COLOURS, _NEARLY_WHITE = 256, 250


@dataclass(frozen=True)
class Picture:
    """`name` is folder/figure below the study; `width` and `height` in pixels at the density that it was drawn in."""

    name: str
    place: str
    anchor: str
    title: str
    subject: str
    alternative: str
    caption: Caption
    data: str
    width: int
    height: int
    command: str


@dataclass(frozen=True)
class Group:
    """Figures that share a caption."""

    title: str
    caption: Caption
    pictures: tuple[Picture, ...]


def pictures_of(study: str, folder: Path, captions: Path, commands: Commands) -> list[Picture]:
    """All figures (PNG) of a study, by folder and name; none without the folder. Raises InputError for damaged ones."""
    found = sorted(folder.glob("*/*.png"), key=lambda path: (path.parent.name, _kind(path.stem), path.stem))
    return [_picture(study, path, captions / f"{study}.rst", commands) for path in found]


def groups_of(pictures: list[Picture]) -> list[Group]:
    """Figures with the same caption together, in the order of the first of each."""
    order = {key: number for number, key in reversed(list(enumerate(map(_caption, pictures))))}
    groups = []
    for _, members in groupby(sorted(pictures, key=lambda p: order[_caption(p)]), key=_caption):
        together = tuple(members)
        groups.append(Group(_common_title(together), together[0].caption, together))
    return groups


def _caption(picture: Picture) -> str:
    return str(picture.caption.html) or picture.title


def _common_title(pictures: tuple[Picture, ...]) -> str:
    first = pictures[0]
    if len(pictures) == 1:
        return f"{first.title}: {first.subject}"
    same = {picture.title for picture in pictures}
    return first.title if len(same) == 1 else f"{first.title} and {len(pictures) - 1} more"


def _kind(name: str) -> str:
    return name.split("-")[0]


def _picture(study: str, path: Path, captions: Path, commands: Commands) -> Picture:
    folder, name = path.parent.name, path.stem
    caption = caption_of(captions, folder=folder, figure=name)
    kind, _, rest = name.partition("-")
    heading = title(re.sub(r"^figure(?=[0-9])", "figure_", kind))
    subject = ", ".join(filter(None, [rest, folder]))
    data, (width, height), described = _embedded(path)
    words = [f"{heading}, {subject}.", caption.first_sentence, described]
    return Picture(
        name=f"{folder}/{name}",
        place=path.as_posix(),
        anchor=anchor("figure", study, folder, name),
        title=heading,
        subject=subject,
        alternative=" ".join(filter(None, words)),
        caption=caption,
        data=data,
        width=width,
        height=height,
        command=commands.making(path.as_posix()),
    )


def _embedded(path: Path) -> tuple[str, tuple[int, int], str]:
    """A PNG as a data URI, its size, and what it says of itself (see `figures.description`)."""
    try:
        with Image.open(path) as image:
            said = image.info.get("Description", "")
            few = _few_colours(image.convert("RGB"))
    except OSError as error:
        raise InputError(f"{path}: no image can be read ({error}); delete it and run the workflow again") from None
    packed = io.BytesIO()
    few.convert("RGB").save(packed, "WEBP", lossless=True, quality=70, method=4)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode(), few.size, said


def _few_colours(image: Image.Image) -> Image.Image:
    """256 colours, white among them, for lossless WebP of a fifth of the PNG's bytes.

    Of the demo's figures levels change by 0.3 of 255 in the mean, and by more than 24 in at most 1 of 20 000 pixels;
    median cuts keep the mean closer, single pixels less so, in 1.4 times the bytes and 8 times the time.
    """
    few = image.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    levels = few.getpalette() or []
    colours = [levels[i : i + 3] for i in range(0, len(levels), 3)]
    few.putpalette([level for c in colours for level in ((255, 255, 255) if min(c) >= _NEARLY_WHITE else c)])
    return few
