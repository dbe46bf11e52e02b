"""Which examples a run trains and is tested on."""

from pathlib import Path

from hessketch.data.examples import Examples, load_examples
from hessketch.data.prepared import read_prepared
from hessketch.runs import Run
from hessketch.seeds import derive_seed


def subset_seed(run: Run) -> int:
    """Seed of a run's training subset: the same for all sizes and networks, so that subsets are nested."""
    return derive_seed(run.seed, run.dataset, "subset")


def examples_of_run(run: Run, data: Path, split: str, per_class: int | None) -> Examples:
    """The examples that a run trained on (`train`, with its label noise), or its test examples.

    `data` is the file of prepared data, `per_class` the number of each class (None: all).
    """
    noise = run.label_noise if split == "train" else 0.0
    return load_examples(read_prepared(data), run.dataset, split, per_class, noise, subset_seed(run))
