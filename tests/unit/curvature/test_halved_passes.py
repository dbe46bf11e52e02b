"""All else that passes through a network where a device runs out of memory."""

import logging
import weakref

import pytest
import torch
from narrow_networks import FAILURES, LOSS, assert_same, narrow, vectors_of_size

from hessketch.curvature import dense, output_gradients, per_example
from hessketch.curvature.class_means import class_means
from hessketch.curvature.dense import dense_hessian
from hessketch.curvature.gradients import squared_gradient_norm
from hessketch.curvature.halving import BatchLimit
from hessketch.curvature.losses import mean_loss_and_accuracy
from hessketch.curvature.operators import CurvatureOperator
from hessketch.curvature.output_gradients import ggn_moment
from hessketch.curvature.per_example import per_example_gradients
from hessketch.curvature.points import ParameterSpace, means_at
from hessketch.data.examples import Examples
from hessketch.progress import notes, notes_said
from hessketch.provenance import Stopwatch

pytestmark = pytest.mark.usefixtures("quick_collections")


def _mean(outputs, targets):
    return LOSS(outputs, targets)


MEASUREMENTS = {
    "gradient": lambda model, e: torch.tensor([squared_gradient_norm(model, LOSS, e.batches(23))]).double(),
    "evaluation": lambda model, e: torch.tensor(mean_loss_and_accuracy(model, LOSS, e.batches(23))).double(),
    "class means": lambda model, e: class_means(model, e).cross,
    "dense Hessian": lambda model, e: dense_hessian(model, LOSS, e.batches(23)),
    "outputs": lambda model, e: ggn_moment(model, LOSS, e.inputs, e.targets).matrix,
    "points": lambda model, e: means_at(space := ParameterSpace(model), space.theta.expand(3, -1), e, _mean),
}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_whatever_passes_through_a_network_halves_its_batches(model, examples, name, said):
    limited = narrow(model, 8)
    assert_same(MEASUREMENTS[name](limited, examples), MEASUREMENTS[name](model, examples))
    assert limited.refused and said[-1].endswith(("halved to 6", "halved to 5"))


VECTORISED = {
    "per-example gradients": (per_example, lambda m, e: per_example_gradients(m, LOSS, e.inputs, e.targets)),
    "Jacobians": (output_gradients, lambda m, e: ggn_moment(m, LOSS, e.inputs, e.targets).matrix),
    "rows": (dense, lambda m, e: dense_hessian(m, LOSS, e.batches(23))),
}


@pytest.mark.parametrize("name", VECTORISED)
def test_vectorised_passes_are_halved(model, examples, name, monkeypatch, said):
    module, measure = VECTORISED[name]
    expected, vmap = measure(model, examples), module.vmap

    def narrow_vmap(function, *options, **others):
        def vectorised(*arguments):
            if len(arguments[0 if name == "rows" else 1]) > 6:
                raise FAILURES["CUDA"]
            return vmap(function, *options, **others)(*arguments)

        return vectorised

    monkeypatch.setattr(module, "vmap", narrow_vmap)
    assert_same(measure(model, examples), expected)
    assert said[0].startswith("out of memory with ") and all("halved to" in text for text in said)


def test_a_dense_hessian_goes_on_with_fewer_examples_where_one_row_does_not_fit(model, examples, monkeypatch):
    expected, vmap, asked = dense_hessian(model, LOSS, examples.batches(23)), dense.vmap, []

    def fails_in_the_middle(function):
        asked.append(function)
        if 2 < len(asked) < 8:  # after two blocks: until a row at a time fails too
            raise FAILURES["CUDA"]
        return vmap(function)

    monkeypatch.setattr(dense, "vmap", fails_in_the_middle)
    done = []
    found = dense_hessian(model, LOSS, examples.batches(23), chunk=16, progress=lambda *at: done.append(at))
    assert_same(found, expected)
    assert done == sorted(done) and done[-1] == (len(found), len(found))


def test_other_errors_pass_untouched(model, examples):
    wrong = Examples(examples.inputs[:, :4], examples.targets, 3)
    for call in (
        lambda: CurvatureOperator("hessian", model, LOSS, wrong.batches(23)),
        lambda: CurvatureOperator("hessian", model, LOSS, wrong.batches(23), memory=0) @ vectors_of_size(model),
        *(lambda measure=measure: measure(model, wrong) for measure in MEASUREMENTS.values()),
        lambda: per_example_gradients(model, LOSS, wrong.inputs, wrong.targets),
    ):
        with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied"):
            call()


def test_the_failed_work_holds_nothing_when_it_is_repeated():
    held, seen = [], []

    def work(size):
        seen.append([reference() is not None for reference in held])
        large = torch.empty(size)
        held.append(weakref.ref(large))
        if size > 2:
            raise FAILURES["CUDA"]
        return size

    assert BatchLimit().run(work, 8) == 2
    assert seen == [[], [False], [False, False]]


def test_a_log_says_a_text_once_and_a_record_keeps_it(caplog):
    """With a failure of torch's own allocator on the host, which has no room for 2^50 numbers."""
    watch, texts, first = Stopwatch(), [], len(notes())
    assert "notes" not in watch.cost()
    with notes_said(texts.append), caplog.at_level(logging.WARNING, "hessketch"):
        for _ in range(2):
            BatchLimit().run(lambda size: torch.empty(2**50 if size > 500 else 1), 1000)
    assert texts == ["out of memory with batches of 1000 examples: halved to 500"]
    assert notes(first) == 2 * texts == [record.getMessage() for record in caplog.records]
    assert watch.cost()["notes"] == texts and "notes" not in Stopwatch().cost()
