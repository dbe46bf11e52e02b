"""Names of parts of a data set: some of its classes, fewer pixels, pixels as they are. Imports no torch."""

import re
from dataclasses import replace

from hessketch.data.dataset import Dataset
from hessketch.errors import InputError, nearest

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
_PART = re.compile(
    r"(?:-classes(?P<classes>[0-9]{1,9}(?:\+[0-9]{1,9})*))?"
    r"(?:-(?P<grey>grey)?(?P<side>[0-9]{1,9})x(?P<height>[0-9]{1,9}))?"
    r"(?P<raw>-raw)?"
)


def derive(name: str, base: Dataset) -> Dataset:
    """The data set of a name that begins with its base's; raises InputError for a part that there is not."""
    part = name.removeprefix(base.name)
    match, problems = _PART.fullmatch(part), part_problems(base, part)
    if match is None or problems:
        raise InputError(f"{name!r}: {'; '.join(problems)}; nearest valid name: {_nearest(base, part)}")
    kept, grey, side, raw = _parts(match)
    channels = 1 if grey else base.channels
    mean, std = (_luminance(base.mean), _luminance(base.std)) if grey else (base.mean, base.std)
    return replace(
        base,
        name=name,
        derived_from=base.name,
        classes=len(kept) or base.classes,
        train_per_class=tuple(base.train_per_class[label] for label in kept) or base.train_per_class,
        test_per_class=tuple(base.test_per_class[label] for label in kept) or base.test_per_class,
        channels=channels,
        mean=(0.0,) * channels if raw else mean,
        std=(1.0,) * channels if raw else std,
        kept_classes=kept,
        grey=grey,
        reduced_side=side,
    )


def _luminance(channels: tuple[float, ...]) -> tuple[float]:
    return (sum(weight * value for weight, value in zip(LUMINANCE, channels, strict=True)),)


def _parts(match: re.Match[str]) -> tuple[tuple[int, ...], bool, int | None, bool]:
    """Classes, grey, side and raw of a part's description."""
    kept = tuple(int(label) for label in match["classes"].split("+")) if match["classes"] else ()
    return kept, bool(match["grey"]), int(match["side"]) if match["side"] else None, bool(match["raw"])


def _part_name(kept: tuple[int, ...], grey: bool, side: int | None, raw: bool) -> str:
    classes = f"-classes{'+'.join(map(str, kept))}" if kept else ""
    return classes + (f"-{'grey' if grey else ''}{side}x{side}" if side else "") + "-raw" * raw


def part_problems(base: Dataset, part: str) -> list[str]:
    """What is wrong with a part's description such as `-classes3+5-14x14` and what is allowed; empty if nothing."""
    match = _PART.fullmatch(part)
    if match is None or not part:
        in_grey = "" if base.channels == 1 else " | -greySIDExSIDE"
        return [f"no such part of {base.name}; allowed: {base.name}[-classesA+B[+C...]][-SIDExSIDE{in_grey}][-raw]"]
    kept, grey, side, raw = _parts(match)
    problems = []
    if match["classes"] and (len(set(kept)) < max(2, len(kept)) or max(kept) >= base.classes):
        allowed = f"at least two different classes from 0 to {base.classes - 1}"
        problems.append(f"classes {match['classes']} given; allowed: {allowed}")
    if grey and base.channels == 1:
        problems.append(f"the images of {base.name} are grey already; allowed: -SIDExSIDE")
    if side is not None and (match["side"] != match["height"] or not 1 <= side <= base.side):
        allowed = f"exactly SIDExSIDE, SIDE a whole number from 1 to {base.side}, the raw images' side"
        problems.append(f"{match['side']}x{match['height']} given; allowed: {allowed}")
    if not problems and part != _part_name(kept, grey, side, raw):
        problems.append("a number begins with 0; allowed: numbers without leading zeros")
    return problems


def _nearest(base: Dataset, part: str) -> str:
    """The valid name nearest to a wrong one: existing classes alone, a side within the range; else by its letters."""
    if part and (match := _PART.fullmatch(part)):
        kept, grey, side, raw = _parts(match)
        if kept:
            kept = tuple(dict.fromkeys(label for label in kept if label < base.classes))
            kept += tuple(label for label in range(base.classes) if label not in kept)[: max(0, 2 - len(kept))]
        side = None if side is None else max(1, min(side, base.side))
        return base.name + _part_name(kept, grey and base.channels > 1, side, raw)
    sides = ["", f"-{base.side // 2}x{base.side // 2}"]
    sides += [f"-grey{base.side // 2}x{base.side // 2}"] if base.channels > 1 else []
    forms = [
        base.name + classes + size + end for classes in ("", "-classes0+1") for size in sides for end in ("", "-raw")
    ]
    return nearest(base.name + part, forms, cutoff=0).removeprefix("; nearest valid name: ")
