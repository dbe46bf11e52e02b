"""A run's path says all of it and reads back."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.runs import Run
from hessketch.seeds import derive_seed

RUN = Run("cifar10", 0.0, 136, "vgg11", "batch", 1.0, "cross_entropy", "sgd", 0.0075, 0)
names = st.sampled_from(["digits", "cifar10", "clusters-k10-d50-s4.5"])
numbers = st.floats(1e-8, 1e20).map(lambda x: float(f"{x:.6g}"))


@given(
    st.builds(
        Run,
        dataset=names,
        label_noise=st.sampled_from([0.0, 0.15, 1e-7]),
        examples_per_class=st.none() | st.integers(1, 10**6),
        network=st.sampled_from(["vgg11", "resnet18_smooth"]),
        norm=st.sampled_from(["batch", "none"]),
        width=numbers,
        loss=st.just("cross_entropy"),
        trainer=st.just("sgd"),
        learning_rate=st.none() | numbers,
        seed=st.integers(0, 10**6),
    )
)
def test_a_path_reads_back_as_the_same_run(run):
    assert Run.from_path(run.path) == run


def test_a_path_goes_from_general_to_specific():
    assert RUN.path == "cifar10/noise0/n136/vgg11-batch-w1/cross_entropy/sgd/lr0.0075/seed0"
    assert RUN.cell.path == "cifar10/noise0/n136/vgg11-batch-w1/cross_entropy/sgd/seed0"


def test_a_path_that_is_no_run_is_refused_with_the_pattern():
    with pytest.raises(InputError, match="the pattern is"):
        Run.from_path("cifar10/vgg11")


_PARTS = st.text(max_size=12) | st.sampled_from(
    ["..", ".", "", "digits", "mlp-none-w1", "a b", "a\0b", "a\nb", "-a", "sgd"]
)


@given(st.lists(_PARTS, min_size=5, max_size=5))
def test_no_path_of_a_run_leads_out_of_its_folder_or_holds_what_a_shell_reads(parts):
    dataset, network, loss, trainer, end = parts
    path = f"{dataset}/noise0/n3/{network}-none-w1/{loss}/{trainer}/seed0{end}"
    try:
        run = Run.from_path(path)
    except InputError:
        return
    assert Path("/results", run.path).resolve().is_relative_to("/results") and ".." not in run.path.split("/")
    assert re.fullmatch(r"[\w.:+/-]+", run.path) and not any(
        part.startswith((".", "-")) for part in run.path.split("/")
    )


@pytest.mark.parametrize("dataset", ["..", "../..", "/etc", "a b", "a\nb", "a\0b", "$(x)", "-x", ""])
def test_a_run_of_a_data_set_whose_name_is_no_name_is_refused(dataset):
    with pytest.raises(InputError, match="is not a run"):
        Run.from_path(RUN.path.replace("cifar10", dataset))
    with pytest.raises(InputError, match="is not a run"):
        Run.from_path(RUN.path + "\n")


def test_seeds_differ_by_purpose_and_identity_and_are_stable():
    seeds = {derive_seed(s, RUN.path, purpose) for s in (0, 1) for purpose in ("initialisation", "batch order")}
    seeds.add(derive_seed(0, replace(RUN, seed=1).path, "initialisation"))
    assert len(seeds) == 5
    assert derive_seed(0, "a", "b") == 8661556481566135079
    assert all(0 <= seed < 2**63 for seed in seeds)
