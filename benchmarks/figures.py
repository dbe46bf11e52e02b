"""Costs of products as bars, with the target as a line; errors of densities against the products they took."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.peers import OPERATORS, OURS
from benchmarks.tables import product_rows, target_of
from hessketch.figures.style import COLOURS, grid, network_name, styled, wrapped_grid

_PANEL = (3.0, 1.75)


@styled
def product_costs(table: pd.DataFrame) -> Figure:
    """Panels of horizontal bars from the long table: networks side by side, operators below each other."""
    wide = product_rows(table)
    problems = list(dict.fromkeys(wide["problem"]))
    operators = [o for o in OPERATORS if o in set(wide["operator"])]
    figure, axes = grid(len(operators), len(problems), _PANEL, sharex="row", sharey="row")
    for row, operator in enumerate(operators):
        for column, problem in enumerate(problems):
            chosen = wide[(wide["problem"] == problem) & (wide["operator"] == operator)]
            _draw(axes[row][column], chosen, target_of(problem, operator))
            network = f"{network_name(problem)}\n" if row == 0 else ""
            axes[row][column].set_title(network + OPERATORS[operator], pad=14)
    for ax in axes[-1]:
        ax.set_xlabel("cost of a product, in gradients")
    return figure


def _draw(ax: Axes, rows: pd.DataFrame, target: float) -> None:
    rows = rows.iloc[::-1]  # the first one on top
    ours = rows["method"] == OURS
    lower, upper = rows["gradients, lower quartile"], rows["gradients, upper quartile"]
    ax.barh(rows["method"], rows["gradients"], color=[COLOURS["hessian"] if o else "0.78" for o in ours], height=0.7)
    spread = [rows["gradients"] - lower, upper - rows["gradients"]]
    ax.errorbar(rows["gradients"], rows["method"], xerr=spread, fmt="none", ecolor="0.3", elinewidth=0.8)
    for method, gradients, is_ours in zip(rows["method"], rows["gradients"], ours, strict=True):
        text = {"ha": "left", "va": "center", "fontsize": 7, "color": "white" if is_ours else "black"}
        ax.annotate(f"{gradients:.2f}", (0, method), (4, 0), textcoords="offset points", **text)
    if not math.isnan(target):
        ax.axvline(target, color=COLOURS["ggn"], linewidth=1.0, linestyle="--")
        above = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
        ax.annotate(f"target {target:g}", (target, 1), (0, 3), fontsize=7, color=COLOURS["ggn"], **above)
    ax.tick_params(axis="y", length=0)


@styled
def density_errors(table: pd.DataFrame) -> Figure:
    """Distance to the exact spectrum against products: a panel a network, a line a method, medians over seeds."""
    chosen = table[table["part"] == "density"]
    keys = ["problem", "method", "choice", "seed"]
    wide = chosen.pivot_table(index=keys, columns="quantity", values="value", sort=False).reset_index()
    middle = wide.groupby(keys[:3], sort=False)[["products", "distance of Ritz values"]].median().reset_index()
    problems, methods = (list(dict.fromkeys(middle[key])) for key in ("problem", "method"))
    figure, axes = wrapped_grid(len(problems), columns=2, panel=(3.2, 2.2))
    for ax, problem in zip(axes, problems, strict=True):
        for method, colour in zip(methods, ("0.6", "0.2", COLOURS["hessian"], COLOURS["ggn"]), strict=False):
            line = middle[(middle["problem"] == problem) & (middle["method"] == method)].sort_values("products")
            ax.loglog(line["products"], line["distance of Ritz values"], "o-", color=colour, markersize=3, label=method)
        ax.set(title=problem, xlabel="products", ylabel="$W_1$ / width of bulk")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure
