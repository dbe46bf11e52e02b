"""One style for all figures: colours, marks, sizes; and the bytes of a finished figure."""

import functools
import io
import math
import re
import textwrap
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from hessketch.data.catalog import describe, parse_clusters
from hessketch.errors import InputError
from hessketch.figures.description import description
from hessketch.ledger import tables_read
from hessketch.records import write_atomically

_PALETTE = sns.color_palette("colorblind")


class Looks(dict[str, Any]):
    """A look for each known name; any other name has one too, always the same, made from the name itself."""

    def __init__(self, known: dict[str, Any], make: Callable[[str], Any]):
        super().__init__(known)
        self._make = make

    def __missing__(self, name: str) -> Any:
        return self._make(name)


def own_colour(name: str) -> tuple[float, float, float]:
    """The colour of an operator or a method that has been added to the package's."""
    return _PALETTE[(1, 6, 8, 9)[zlib.crc32(name.encode()) % 4]]


def own_marker(name: str) -> str:
    return "Ph*<>X"[zlib.crc32(name.encode()) // 4 % 6]


def own_name(name: str) -> str:
    return name.replace("_", " ")


_COLOURS = {
    "hessian": _PALETTE[0],
    "ggn": _PALETTE[3],
    "residual": _PALETTE[2],
    "second_moment": _PALETTE[4],
    "gradient_covariance": _PALETTE[5],
    "cross": _PALETTE[7],
}
COLOURS = Looks(_COLOURS, own_colour)
_NAMES = {
    "hessian": "Hessian",
    "ggn": "GGN",
    "residual": "residual",
    "second_moment": "second moment of gradients",
    "gradient_covariance": "covariance of gradients",
    "cross": "cross term",
}
NAMES = Looks(_NAMES, own_name)
_MARKERS = {  # open and filled, so that one shows through where it lies on another
    "hessian": {"marker": "o", "markerfacecolor": "none", "markersize": 6},
    "ggn": {"marker": "s", "markersize": 3},
    "residual": {"marker": "^", "markersize": 4},
    "second_moment": {"marker": "D", "markersize": 3},
    "gradient_covariance": {"marker": "v", "markersize": 3},
    "cross": {"marker": "x", "markersize": 4},
}
MARKERS = Looks(_MARKERS, lambda name: {"marker": own_marker(name), "markersize": 4})
DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "digits": "digits",
}
NETWORKS = {
    "vgg11": "VGG11",
    "resnet18": "ResNet18",
    "resnet18_smooth": "ResNet18 (GELU)",
    "mlp": "MLP",
    "mlp_tanh": "MLP (tanh)",
    "3c3d": "3c3d",
    "allcnnc": "All-CNN-C",
}
_NETWORK_LABEL = re.compile(r"(?P<network>.+)-(?P<norm>[^-]+)-w(?P<width>[0-9.]+(?:e-?[0-9]+)?)")
FORMATS = (".pdf", ".png", ".svg")
PANEL = (3.3, 2.3)
"""Width and height of one panel in inches: the column of a two-column page."""

SETTINGS = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("paper", font_scale=0.9),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.linewidth": 0.8,
    **{f"{axis}tick.{level}.width": 0.6 for axis in "xy" for level in ("major", "minor")},
    **{f"{axis}tick.major.size": 3.5 for axis in "xy"},
    **{f"{axis}tick.minor.size": 2.0 for axis in "xy"},
    "axes.prop_cycle": cycler(color=_PALETTE),
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "pdf.fonttype": 42,  # TrueType, embedded: Type 3 fonts are refused by some journals and cannot be edited
    "ps.fonttype": 42,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
}

P = ParamSpec("P")


def operators_in(names: Iterable[str]) -> list[str]:
    """Each operator once, in the order of NAMES, then those that have been added, by name."""
    present = set(names)
    return [*(name for name in NAMES if name in present), *sorted(present - set(NAMES))]


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorator: runs a drawing function under SETTINGS and leaves the global ones alone."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(SETTINGS):
            return draw(*args, **kwargs)

    return wrapped


def render(figure: Figure, format: str, source: str = "") -> bytes:
    """The figure as `pdf`, `png` or `svg` bytes; the same figure always gives the same bytes (no date inside).

    `source`, what it was drawn from, is kept in the file: as Source, or Subject of a PDF. A PNG tells what it shows.
    """
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(format, {})
    told = {"Subject" if format == "pdf" else "Source": source} if source else {}
    told |= {"Description": description(figure)} if format == "png" else {}
    buffer = io.BytesIO()
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": "hessketch"}):
        figure.savefig(buffer, format=format, metadata={**undated, **told})
    return buffer.getvalue()


def save_figure(figure: Figure, *paths: str | Path) -> tuple[Path, ...]:
    """Writes the figure to each path in the format of its suffix (pdf, png, svg), whole or not at all.

    Each holds paths and SHA-256 of the tables that this process has read: `sha256:0a1b... results/demo/...` a line.
    Returns the paths. Raises InputError, before anything is written, for another suffix.
    """
    places = tuple(Path(path) for path in paths)
    for path in places:
        if path.suffix not in FORMATS:
            raise InputError(f"{path}: no format for a figure; allowed suffixes: {', '.join(FORMATS)}")
    source = "\n".join(f"sha256:{digest} {path}" for path, digest in tables_read().items())
    for path in places:
        write_atomically(path, partial(Path.write_bytes, data=render(figure, path.suffix[1:], source)))
    return places


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches that lays its parts out without overlap."""
    return Figure(figsize=(width, height), layout="constrained")


def grid(rows: int, columns: int, panel: tuple[float, float] = PANEL, **options: Any) -> tuple[Figure, list]:
    """A figure of rows x columns panels and its axes as a list of lists; `options` go to `Figure.subplots`."""
    figure = new_figure(columns * panel[0], rows * panel[1])
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes.tolist()


def wrapped_grid(count: int, columns: int = 2, panel: tuple[float, float] = PANEL) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in rows of at most `columns`; places without a panel are removed."""
    columns = min(count, columns)
    figure, rows = grid(-(-count // columns), columns, panel)
    axes = [ax for row in rows for ax in row]
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def dataset_name(dataset: str) -> str:
    """Display name: `CIFAR10, classes 3 and 5`, `MNIST, 14x14, not normalised`, `2 clusters in 50 dimensions`."""
    try:
        described = describe(dataset)
    except InputError:  # a name of one's own
        return own_name(dataset)
    if not described.channels and dataset.startswith("clusters-"):
        separation = parse_clusters(dataset)[2]
        return f"{described.classes} clusters in {described.side} dimensions, {separation:g} apart"
    parts = [DATASETS.get(described.base, own_name(described.base))]
    if described.kept_classes:
        *first, last = map(str, described.kept_classes)
        parts.append(f"classes {', '.join(first)} and {last}")
    if described.reduced_side:
        parts.append(f"{'grey ' * described.grey}{described.reduced_side}x{described.reduced_side}")
    if dataset.endswith("-raw"):
        parts.append("not normalised")
    return ", ".join(parts)


def message(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    with mpl.rc_context(SETTINGS):
        figure = new_figure(5.0, 1.5)
        figure.text(0.5, 0.5, textwrap.fill(text, 70), ha="center", va="center", fontsize=8)
    return figure


def ordered(datasets: Iterable[str]) -> list[str]:
    """Each data set once: those of DATASETS in the papers' order, then the others by name."""
    known = list(DATASETS)
    rank = {name: i for i, name in enumerate(known)}
    return sorted(set(datasets), key=lambda name: (rank.get(name, len(known)), name))


def network_name(network: str) -> str:
    """Display name of a network label such as `vgg11-batch-w0.0625` (`VGG11, width 1/16`) or of a bare name.

    Batch norm and width 1, the paper's, are not said; names that are not in NETWORKS stay as they are.
    """
    label = _NETWORK_LABEL.fullmatch(network)
    if label is None:
        return NETWORKS.get(network, network)
    parts = [NETWORKS.get(label["network"], label["network"])]
    if label["norm"] != "batch":
        parts.append("no norm" if label["norm"] == "none" else f"{label['norm']} norm")
    if float(label["width"]) != 1.0:
        parts.append(f"width {_width_text(float(label['width']))}")
    return ", ".join(parts)


def _width_text(width: float) -> str:
    """1/16 for what is a whole number's inverse, else the decimal number."""
    inverse = 1.0 / width
    return f"1/{inverse:.0f}" if width < 1.0 and math.isclose(inverse, round(inverse)) else f"{width:g}"


def title_lines(title: str) -> str:
    """A title broken after commas, where there are any, into lines that fit over one panel of width PANEL[0]."""
    unbroken = ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in title.split(", "))
    lines = textwrap.wrap(unbroken, 38, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def colour_scale(norm: Normalize) -> ScalarMappable:
    """The map from a number (a sample size) to a colour, for a colour bar."""
    return ScalarMappable(norm, "viridis")


def scale_colours(values: Iterable[float], norm: Normalize) -> list[tuple[float, ...]]:
    """Colours of numbers on `colour_scale`."""
    return [tuple(colour) for colour in colour_scale(norm).to_rgba(list(values))]
