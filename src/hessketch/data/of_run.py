"""Which examples a run trains and is tested on."""

from hessketch.data.examples import Examples, load_examples
from hessketch.data.prepared import PreparedData
from hessketch.runs import Run
from hessketch.seeds import derive_seed


def subset_seed(run: Run) -> int:
    """Seed of a run's training subset: the same for all sizes and networks, so that subsets are nested."""
    return derive_seed(run.seed, run.dataset, "subset")


def examples_of_run(run: Run, prepared: PreparedData, split: str, per_class: int | None) -> Examples:
    """The examples that a run trained on (`train`, with its label noise), or its test examples.

    `prepared` are the data of the run's data set, `per_class` the number of each class (None: all).
    Raises InputError as `load_examples` does, for data of another data set among others.
    """
    noise = run.label_noise if split == "train" else 0.0
    return load_examples(prepared, run.dataset, split, per_class, noise, subset_seed(run))
