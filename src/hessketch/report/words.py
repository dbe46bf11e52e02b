"""How the report writes numbers, names, places in the page and commands."""

import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from hessketch.claims.text import measured_text

NOTHING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_SPELLED = {"hessian": "Hessian", "sgd": "SGD", "ggn": "GGN"}


@dataclass(frozen=True)
class Commands:
    """What makes a file of the profile again; `configfiles` as given to Snakemake."""

    configfiles: Sequence[str] = ()

    def making(self, *targets: str) -> str:
        """Targets stand before --configfile: after it they would be config files too."""
        flag = ["--configfile", *self.configfiles] if self.configfiles else []
        return shlex.join(["snakemake", "--cores", "all", *targets, *flag])


def number(value: Any, digits: int = 4) -> str:
    """A number in so many significant digits; whole ones in full, with thin spaces; a dash for NaN or nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{int(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", _MINUS)
    return _typeset(f"{value:.{digits}g}")


def measured(value: float, standard_error: float, unit: str = "") -> str:
    """`0.93 ± 0.02 nats`; without the error where there is none."""
    if value is None or math.isnan(value):
        return NOTHING
    known = standard_error is not None and math.isfinite(standard_error) and standard_error > 0
    text = _typeset(measured_text(value, standard_error)) if known else number(value)
    return " ".join(filter(None, [text, unit]))


def _typeset(text: str) -> str:
    """Numbers with a true minus sign, and exponents without a plus or leading zeros."""
    return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].strip("+"), text).replace("-", _MINUS)


def size(count: float) -> str:
    """Bytes as kB, MB or GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def duration(seconds: float) -> str:
    """Seconds as `12.3 s`, `4 min 10 s` or `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def title(name: str) -> str:
    """`overlap_over_steps` as `Overlap over steps`, `sgd_dynamics` as `SGD dynamics`."""
    words = " ".join(_SPELLED.get(word, word) for word in name.strip("_").split("_"))
    return words[:1].upper() + words[1:]


def sentence(text: str) -> Markup:
    """Text as a sentence: with a capital, a full stop, and what stands in backticks as code."""
    text = text.strip()
    ended = text if text.endswith((".", "?", "!")) else f"{text}."
    return code(ended[:1].upper() + ended[1:])


def code(text: str) -> Markup:
    """Text with what stands in backticks as code, everything escaped."""
    parts = map(escape, text.split("`"))
    return Markup("").join(Markup(f"<code>{part}</code>") if odd % 2 else part for odd, part in enumerate(parts))


def anchor(*parts: str) -> str:
    """An identifier in the page, of a name whatever its characters."""
    return "-".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts)


def listed(values: Iterable[Any], most: int = 8) -> str:
    """Different values in their order; of many the first and how many more."""
    found = list(dict.fromkeys(map(str, values)))
    rest = [f"and {len(found) - most} more"] if len(found) > most else []
    separator = "; " if any("," in text for text in found) else ", "
    return separator.join([*found[:most], *rest]) or NOTHING
