"""A small folder of results as a pipeline leaves it, with names that a page must escape."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hessketch.figures.style import save_figure
from hessketch.records import write_atomically, write_record, write_table
from hessketch.report.page import Sources

ROOT = Path(__file__).parents[3]
PROFILE = "<script>alert('profile')</script>"
DATASET = "<img src=x onerror=alert(1)>"
STUDIES = ("basins", "full_spectrum")
CELLS = {"basins": ("digits-mlp-none-w0.5", ["barriers", "line"]), "full_spectrum": ("cross_entropy", ["figure1-a"])}
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
CLAIM = {
    "paper": "sagun2017", "place": "abstract", "quantity": "height & width", "unit": "nats", "sense": "at most",
    "threshold": 0.5, "why": "half of `p` is chance", "over": "every case", "value": 0.25, "standard_error": 0.015,
    "seeds": 2, "cases": 2, "cases_met": 2, "deciding_case": f"{DATASET}, mlp x 0.5", "scale": "p 2,000",
    "reason": "", "study": "basins", "figure": "*/barriers", "pictured": "bars",
}  # fmt: skip
CLAIMS = [
    {"claim": "low_barrier", "statement": "The barrier is low.", "verdict": "supported"},
    {"claim": "short_way", "statement": "The <b>way</b> is short.", "verdict": "contradicted", "over": "mean of cases"},
    {
        "claim": "many_zeros", "statement": "Most are zero.", "verdict": "not tested at this scale",
        "paper": "papyan2018", "study": "full_spectrum", "figure": "*/figure9-*", "value": np.nan,
        "standard_error": np.nan, "seeds": 0, "cases": 0, "cases_met": 0, "deciding_case": "", "scale": "",
        "reason": "the network is <too> small",
    },
]  # fmt: skip
COLUMNS = (
    "claim", "paper", "place", "statement", "quantity", "unit", "sense", "threshold", "why", "over", "value",
    "standard_error", "seeds", "cases", "cases_met", "deciding_case", "scale", "verdict", "reason", "study", "figure",
    "pictured",
)  # fmt: skip


def _runs() -> pd.DataFrame:
    identity = {"dataset": DATASET, "network": "mlp", "norm": "none", "width": 0.5, "trainer": "sgd", "n": 500}
    rows = [{**identity, "seed": seed, "p": 2000, "status": "diverged" if seed else "finished"} for seed in (0, 1)]
    return pd.DataFrame([{**row, "test_accuracy": 0.123456} for row in rows])


def _drawn(name: str) -> Figure:
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot([1, 2, 3], [3, 1, 2], label="lines")
    axes.set(xlabel="steps", ylabel=f"loss of {name}", xscale="log", title="Digits")
    axes.legend()
    return figure


def _observations() -> pd.DataFrame:
    rows = [
        {"claim": claim, "dataset": DATASET, "network": "mlp", "width": width, "case": "", "p": 2000.0, "n": 500.0,
         "seed": seed, "value": 0.2 + 0.1 * seed + 0.4 * (width == 1)}
        for claim in ("low_barrier", "short_way") for width in (0.5, 1.0) for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def make_results(folder: Path, claims: bool = True) -> Sources:
    """Writes `results/demo`, `figures/demo` and `logs/demo` below a folder, which is the working directory."""
    results, figures = folder / "results/demo", folder / "figures/demo"
    write_record({"profile": PROFILE, "datasets": {DATASET: {"epochs": 3}}}, results / "config.json")
    environment = {"device": "cpu", "device_name": "one <fast> chip", "threads": 1, "python": "3.11.7",
                   "packages": {"torch": "2.11"},
                   "source": {"commit": "abc123", "uncommitted_changes": True}}  # fmt: skip
    write_record(
        {"identity": {"seed": 0}, "environment": environment, "wall_seconds": 2.0}, results / "runs/record.json"
    )
    for study, (cell, names) in CELLS.items():
        write_table(_runs(), results / study / "runs.parquet")
        write_table(
            pd.DataFrame({"rank": range(1000), "eigenvalue": np.arange(1000.0)}), results / study / "all.parquet"
        )
        write_record({"rows": 2}, results / study / "record.json")
        for name in names:
            save_figure(_drawn(name), figures / study / cell / f"{name}.png")
    text = "dataset,network\ndigits,<i>mlp</i>\n"
    write_atomically(results / "basins/table1.csv", lambda path: path.write_text(text))
    for place, numbers in {
        "train/a.tsv": (10, 50, 8),
        "train/b.tsv": (100, 70, 90),
        "metric_study.tsv": (5, 20, 4),
    }.items():
        line = f"{numbers[0]}\t0:00:10\t{numbers[1]}\t0\t0\t0\t0\t0\t10\t{numbers[2]}\n"
        write_atomically(folder / "logs" / place, lambda path, line=line: path.write_text(BENCHMARK + line))
    if claims:
        write_table(pd.DataFrame([{**CLAIM, **claim} for claim in CLAIMS])[list(COLUMNS)], results / "claims.parquet")
        write_table(_observations(), results / "claim_observations.parquet")
    return Sources(results, figures, ROOT / "workflow/report", folder / "logs", ("config/my demo.yaml",))
