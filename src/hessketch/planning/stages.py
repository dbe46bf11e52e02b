"""The stages of the pipeline: which rules belong to each, and how many jobs Snakemake counts."""

import re
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

from hessketch.errors import InputError

# Rules that do the work, in their order, as banner and plan call them; a pattern stands for a loop's rules.
STAGES = {
    "prepare_data": "data sets",
    "train": "trainings",
    "federate": "federated trainings",
    "select_learning_rate": "selections",
    "spectrum": "spectra",
    "checkpoint_spectra": "spectra of checkpoints",
    "trajectories_*": "followed trainings",
    "predictor_spectra": "spectra of predictors",
    "federated_predictor_spectra": "spectra of predictors",
    "sgd_dynamics_measures": "measurements along trainings",
    "metric_study": "comparisons of metrics",
    "eigenspaces_measures": "measurements of eigenspaces",
    "federated_eigenspaces": "measurements of eigenspaces",
    "exact_spectra": "exact spectra along trainings",
    "basins_paths": "comparisons of solutions",
    "class_means": "decompositions by class",
    "*_tables": "tables",
    "*_figure": "figures",
    "*_notebook": "notebooks",
    "report": "reports",
}
# Rules whose jobs follow from what a profile's runs can fill, which the rule files alone know.
DRAWN = {"tables": "table", "figures": "figure", "notebooks": "notebook", "reports": "figure"}  # stage to kind of start
_ROW = re.compile(r"^(\w+) +([0-9]+)$", re.MULTILINE)


def stage_of(rule: str) -> str | None:
    """The stage of a rule; None of one that does no work, such as `all`."""
    return next((stage for pattern, stage in STAGES.items() if fnmatchcase(rule, pattern)), None)


def counted_by_snakemake(workflow: Path, configfile: Path) -> Counter[str]:
    """Jobs of each rule that the whole workflow has, whatever is there already: a dry run of Snakemake.

    Raises InputError where there is no workflow, and with Snakemake's own words where it refuses the config.
    """
    if not (workflow / "Snakefile").is_file():
        raise InputError(f"no Snakefile in {workflow}; run in the repository's folder, or give --workflow FOLDER")
    words = ["--dry-run", "--forceall", "--quiet", "rules", "--cores", "1"]
    words += ["--snakefile", "Snakefile", "--configfile", str(configfile.resolve())]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words], cwd=workflow, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"snakemake refuses {configfile}: {(done.stderr or done.stdout).strip()}")
    counts = Counter({rule: int(count) for rule, count in _ROW.findall(done.stdout + done.stderr)})
    return Counter({rule: count for rule, count in counts.items() if rule not in ("total", "job", "all")})


def by_stage(rules: Counter[str]) -> Counter[str]:
    """Jobs of each stage."""
    stages: Counter[str] = Counter()
    for rule, count in rules.items():
        if (stage := stage_of(rule)) is not None:
            stages[stage] += count
    return stages
