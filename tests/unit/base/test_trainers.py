"""A trainer's label says all of it and reads back; what makes no sense is refused in words."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.runs import Run
from hessketch.trainers import FEDERATED, FULL_BATCH, NAMED, SGD, Trainer

REDUCED = ("count_sketch", "top_r", "fetch_sgd")
trainers = st.sampled_from([Trainer("sgd"), Trainer("uncompressed")]) | st.builds(
    Trainer, st.sampled_from(REDUCED), st.booleans(), st.floats(1, allow_infinity=False)
)


@given(trainers)
def test_a_label_reads_back_as_the_same_trainer(trainer):
    assert Trainer.parse(trainer.label) == trainer


_RESTS = st.text(max_size=8) | st.sampled_from(["/..", "-x1/..", "-x 2", "-x1_0\n", "-x2\0"])


@given(st.sampled_from([*NAMED, *REDUCED]), _RESTS)
def test_no_label_that_is_read_leads_out_of_a_folder(name, rest):
    try:
        label = Trainer.parse(name + rest).label
    except InputError:
        return
    assert re.fullmatch(r"[a-z0-9_.+-]+", label)


@given(trainers, st.none() | st.just(0.05))
def test_a_label_stands_in_the_path_of_a_run(trainer, rate):
    run = Run("digits", 0.0, 100, "mlp_smooth", "none", 1.0, "cross_entropy", trainer.label, rate, 3)
    read = Run.from_path(run.path)
    assert read == run
    assert Trainer.parse(read.trainer) == trainer


@pytest.mark.parametrize(
    ("label", "trainer", "named"),
    [
        ("sgd", Trainer("sgd"), "sgd"),
        ("uncompressed", Trainer("uncompressed"), "uncompressed"),
        ("count_sketch-x100", Trainer("count_sketch", False, 100), "count_sketch"),
        ("count_sketch_ef-x100", Trainer("count_sketch", True, 100.0), "count_sketch_ef"),
        ("top_r-x2.5", Trainer("top_r", False, 2.5), "top_r"),
        ("fetch_sgd_ef-x10", Trainer("fetch_sgd", True, 10), "fetch_sgd_ef"),
        ("top_r-x1", Trainer("top_r", reduction=1), "top_r"),
        ("top_r_ef-x1e+15", Trainer("top_r", True, 1e15), "top_r_ef"),
    ],
)
def test_labels_are_written_as_the_paths_are(label, trainer, named):
    assert trainer.label == label
    assert Trainer.parse(label) == trainer
    assert trainer.named == named
    assert trainer.federated == (label != "sgd")


def test_a_number_written_otherwise_is_the_same_trainer():
    assert Trainer.parse("top_r-x2.50").label == Trainer.parse("top_r-x0.25e1").label == "top_r-x2.5"


def test_a_reduction_has_the_digits_of_its_label():
    trainer = Trainer("top_r", reduction=10 / 3)
    assert trainer.label == "top_r-x3.33333333333"
    assert trainer.reduction == 3.33333333333


def test_every_method_has_its_names():
    assert {Trainer.parse(name if name == "uncompressed" else f"{name}-x10").named for name in NAMED} == set(NAMED)
    assert {Trainer.parse(name if name == "uncompressed" else f"{name}-x10").method for name in NAMED} == set(FEDERATED)
    assert SGD not in FEDERATED


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            "top-r-x10",
            "'top-r-x10' is no trainer; allowed: sgd, .*, or METHOD-x.*; nearest valid name: top_r$",
        ),
        ("countsketch_ef-x10", "nearest valid name: count_sketch_ef$"),
        ("sgdd", "nearest valid name: sgd$"),
        ("", "'' is no trainer; allowed: .*fetch_sgd_ef, or one that an extension registers$"),
        (
            "quantised-x10",
            "'quantised-x10' is no trainer; allowed: .*fetch_sgd_ef, or one that an extension registers$",
        ),
        ("top_r", "top_r without a reduction; write for example top_r-x10"),
        ("fetch_sgd_ef", "fetch_sgd_ef without a reduction; write for example fetch_sgd_ef-x10"),
        ("top_r-x", "'top_r-x': its reduction '' is no number"),
        (
            "top_r-xten",
            "'top_r-xten': its reduction 'ten' is no number; allowed: sgd, .*, or METHOD-x",
        ),
        ("top_r-x0.5", "top_r with a reduction of 0.5; allowed: finite and at least 1"),
        ("top_r-x-5", "reduction of -5; allowed"),
        ("top_r-xnan", "reduction of nan; allowed"),
        ("count_sketch_ef-x1e400", "count_sketch_ef with a reduction of inf; allowed"),
        ("sgd-x10", "sgd with a reduction: it sends everything; write sgd"),
        ("uncompressed-x10", "uncompressed with a reduction: it sends everything; write uncompressed"),
        ("sgd_ef", "sgd_ef: sgd sends everything, no error is left to feed back"),
        ("uncompressed_ef", "uncompressed_ef: uncompressed sends everything"),
    ],
)
def test_a_label_that_is_none_is_refused_in_words(label, message):
    with pytest.raises(InputError, match=message):
        Trainer.parse(label)


def test_a_method_given_with_its_error_feedback_in_the_name_is_refused():
    with pytest.raises(
        InputError, match=r"'count_sketch_ef' is no training method; .*; nearest valid name: count_sketch$"
    ):
        Trainer("count_sketch_ef", reduction=10)


@pytest.mark.parametrize("module", ["hessketch.trainers", "hessketch.federated.partition"])
def test_neither_torch_nor_pandas_is_imported(module):
    check = f"import sys, {module}; sys.exit(str({{'torch', 'pandas'}} & set(sys.modules)) if " + (
        "{'torch', 'pandas'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("size", "label"), [(50, "sgd-b50"), (1, "sgd-b1"), (FULL_BATCH, "sgd-full")])
def test_sgd_names_its_mini_batches(size, label):
    trainer = Trainer("sgd", batch_size=size)
    assert trainer.label == label
    assert Trainer.parse(label) == trainer
    assert not trainer.federated


@pytest.mark.parametrize("label", ["sgd-b0", "sgd-b-3", "sgd-b", "sgd-full2", "uncompressed-b5"])
def test_a_batch_size_that_is_none_is_refused(label):
    with pytest.raises(InputError, match="sgd-bEXAMPLES"):
        Trainer.parse(label)


def test_a_batch_size_belongs_to_sgd():
    with pytest.raises(InputError, match="top_r with mini-batches of 5"):
        Trainer("top_r", reduction=10, batch_size=5)


@pytest.mark.parametrize(
    ("first", "later", "label"), [(250, 10, "sgd-b250-b10"), (FULL_BATCH, 10, "sgd-full-b10"), (1, 2, "sgd-b1-b2")]
)
def test_sgd_that_switches_names_both_its_batches_and_knows_the_first_trainer(first, later, label):
    trainer = Trainer("sgd", batch_size=first, later_batch_size=later)
    assert trainer.label == label and Trainer.parse(label) == trainer and not trainer.federated
    assert trainer.first == Trainer("sgd", batch_size=first)
    assert trainer.first.first == trainer.first
    run = Run("digits", 0.0, 100, "mlp", "none", 1.0, "cross_entropy", label, 0.1, 3)
    assert Run.from_path(run.path) == run


@pytest.mark.parametrize(
    "label", ["sgd-b250-b0", "sgd-b250-full", "sgd-b250-", "sgd-b250-b", "sgd-b5-b4-b3", "sgd-b250b10", "sgd-full-10"]
)
def test_a_switch_that_is_none_is_refused(label):
    with pytest.raises(InputError, match="either with -bEXAMPLES for those of later steps"):
        Trainer.parse(label)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"later_batch_size": 5}, "sgd with mini-batches of 5 after a switch, before it none named; allowed"),
        ({"batch_size": 5, "later_batch_size": 5}, "of 5 after a switch, before it 5; .* two different numbers"),
        ({"batch_size": 5, "later_batch_size": 0}, "of 0 after a switch, before it 5"),
        ({"batch_size": 0, "later_batch_size": -1}, "of -1 after a switch, before it all"),
        ({"method": "top_r", "reduction": 10, "later_batch_size": 5}, "top_r with mini-batches of 5 after a switch"),
        ({"method": "uncompressed", "batch_size": 9, "later_batch_size": 5}, "uncompressed with mini-batches of 9"),
    ],
)
def test_a_later_batch_size_without_a_first_or_the_same_as_it_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        Trainer(**{"method": "sgd", **given})


def test_a_label_with_the_same_batches_twice_is_refused():
    with pytest.raises(InputError, match="two different numbers, or all first, as sgd-b250-b10"):
        Trainer.parse("sgd-b10-b10")
