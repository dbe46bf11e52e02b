"""A figure in words, for who cannot see it: its panels with their axes and what their legends name."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend


def description(figure: Figure) -> str:
    """`2 panels. Train: density (logarithmic) against eigenvalue; Hessian, GGN. ...`; of equal panels the first."""
    panels = [ax for ax in figure.axes if ax.get_visible() and ax.axison]
    own = [figure.get_suptitle(), figure.get_supylabel(), figure.get_supxlabel()]
    own += [] if panels else [text.get_text() for text in figure.texts]
    named = ", ".join(name for legend in figure.legends for name in _names(legend))
    count = [f"{len(panels)} panels"] if len(panels) > 1 else []
    parts = [*count, *map(_plain, own), *map(_panel, panels), f"Legend: {named}" if named else ""]
    return " ".join(f"{part.rstrip('.')}." for part in dict.fromkeys(filter(None, parts)))


def _panel(ax: Axes) -> str:
    x, y = _axis(ax.get_xlabel(), ax.get_xscale()), _axis(ax.get_ylabel(), ax.get_yscale())
    axes = f"{y} against {x}" if x and y else y or x
    legend = ax.get_legend()
    named = ", ".join(_names(legend)) if legend else ""
    title = _plain(" ".join(filter(None, (ax.get_title("left"), ax.get_title(), ax.get_title("right")))))
    shown = "; ".join(filter(None, (axes, named)))
    return ": ".join(filter(None, (title, shown)))


def _axis(label: str, scale: str) -> str:
    kinds = {"log": " (logarithmic)", "symlog": " (logarithmic on both sides of a linear part)"}
    return _plain(label) + kinds.get(scale, "") if label else ""


def _names(legend: Legend) -> list[str]:
    return [_plain(text.get_text()) for text in legend.get_texts() if text.get_text()]


def _plain(text: str) -> str:
    return " ".join(text.replace("$", "").replace("\\,", " ").split())
