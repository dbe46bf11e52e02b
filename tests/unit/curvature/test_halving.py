"""Operators where a device runs out of memory: fewer examples at once, the same numbers, a line in the log."""

import gc
import weakref

import pytest
import torch
from narrow_networks import FAILURES, LOSS, assert_same, narrow, vectors_of_size
from torch import nn

from hessketch.curvature.averages import ExampleAverage
from hessketch.curvature.gradients import squared_gradient_norm
from hessketch.curvature.losses import mean_loss_and_accuracy
from hessketch.curvature.operators import BlockDiagonalOperator, ComponentOperators, CurvatureOperator
from hessketch.curvature.tangents import TangentTape
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum

pytestmark = pytest.mark.usefixtures("quick_collections")
NAMES = ("hessian", "ggn", "residual", "second_moment", "gradient_covariance")


def vectors_of(operator, columns=3):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(operator.shape[0], columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("name", NAMES)
def test_a_product_in_halved_batches_is_that_of_whole_ones(model, examples, name, memory, said):
    expected = CurvatureOperator(name, model, LOSS, examples.batches(13))
    vectors = vectors_of(expected)
    operator = CurvatureOperator(name, narrow(model, 5), LOSS, examples.batches(13), memory=memory)
    for _ in range(2):
        assert_same(operator @ vectors, expected @ vectors)
    assert operator.largest_batch == 4
    assert said == [f"out of memory with batches of {n} examples: halved to {(n + 1) // 2}" for n in (13, 7)]


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_every_way_in_which_memory_runs_out_is_known(model, examples, failure):
    expected = ComponentOperators(model, LOSS, examples.batches(23)).products(vectors_of_size(model))
    found = ComponentOperators(narrow(model, 6, failure), LOSS, examples.batches(23)).products(vectors_of_size(model))
    for name, product in found.items():
        assert_same(product, expected[name])


def test_diagonal_blocks_are_the_same_in_halved_batches(model, examples):
    expected = BlockDiagonalOperator("hessian", model, LOSS, examples.batches(23), blocks="modules")
    blocks = BlockDiagonalOperator("hessian", narrow(model, 6), LOSS, examples.batches(23), blocks="modules")
    assert_same(blocks @ vectors_of(blocks), expected @ vectors_of(blocks))


@pytest.mark.parametrize("name", ["hessian", "ggn"])
@pytest.mark.parametrize("place", [1, 2, 5])
def test_what_was_added_before_memory_ran_out_is_not_added_again(model, examples, name, place, monkeypatch):
    """The failing product is that of any vector of any batch, kept or not."""
    expected = CurvatureOperator(name, model, LOSS, examples.batches(8), memory=0)
    vectors, calls = vectors_of(expected), []
    for memory in (None, 0):
        operator = CurvatureOperator(name, model, LOSS, examples.batches(8), memory=memory)
        calls.clear()
        for kind in (operator._average._build.kept.func, operator._average._build.dropped.func):
            multiply = kind.__call__

            def failing(self, *arguments, multiply=multiply):
                calls.append(self)
                if len(calls) == place:
                    raise FAILURES["CUDA"]
                return multiply(self, *arguments)

            monkeypatch.setattr(kind, "__call__", failing)
            if operator._average._build.kept.func is operator._average._build.dropped.func:
                break
        assert_same(operator @ vectors, expected @ vectors)
        assert len(calls) > place
        monkeypatch.undo()


def test_kept_graphs_are_let_go_before_a_batch_is_halved(model, examples, monkeypatch, said):
    operator = CurvatureOperator("hessian", model, LOSS, examples.batches(4))
    vectors = vectors_of(operator)
    expected, kept = operator @ vectors, operator.batches_kept
    assert kept == 6
    graphs = [weakref.ref(part.product) for parts in operator._average._kept for part in parts]
    play, room = TangentTape.play, 2

    def short_of_memory(tape, direction):
        if operator.batches_kept > room:
            raise FAILURES["CUDA"]
        return play(tape, direction)

    monkeypatch.setattr(TangentTape, "play", short_of_memory)
    assert_same(operator @ vectors, expected)
    assert operator.batches_kept == 1 and operator.largest_batch is None
    assert said == [f"out of memory with graphs of {n} batches kept: {n // 2} stay" for n in (6, 3)]
    gc.collect()
    assert [graph() is not None for graph in graphs] == [True] + [False] * 5


def test_where_too_much_was_to_be_kept_less_is_and_batches_stay_whole(model, examples, monkeypatch):
    expected = CurvatureOperator("ggn", model, LOSS, examples.batches(4), memory=0)
    product = ExampleAverage._product

    def room_for_four(average, part, build):
        if average.batches_kept >= 4:
            raise FAILURES["CUDA"]
        return product(average, part, build)

    monkeypatch.setattr(ExampleAverage, "_product", room_for_four)
    operator = CurvatureOperator("ggn", model, LOSS, examples.batches(4))
    assert operator.batches_kept == 2 and operator.largest_batch is None
    assert_same(operator @ vectors_of(operator), expected @ vectors_of(operator))


def test_data_without_an_order_are_read_to_their_end_when_their_graphs_are_let_go(model, examples, monkeypatch):
    class Shuffled:
        def __iter__(self):
            order = torch.randperm(23)
            return iter(Examples(examples.inputs[order], examples.targets[order], 3).batches(4))

    operator = CurvatureOperator("hessian", model, LOSS, Shuffled())
    vectors = vectors_of(operator)
    expected, play, played = operator @ vectors, TangentTape.play, []

    def fails_once(tape, direction):
        played.append(tape)
        if len(played) == 8:
            raise FAILURES["CUDA"]
        return play(tape, direction)

    monkeypatch.setattr(TangentTape, "play", fails_once)
    assert operator.batches_kept == 6
    for _ in range(2):
        assert_same(operator @ vectors, expected)
    assert operator.batches_kept == 0


def test_a_block_of_vectors_without_room_lets_graphs_go_and_then_names_the_key(model, examples, monkeypatch):
    operator = CurvatureOperator("hessian", model, LOSS, examples.batches(8))
    vectors = vectors_of(operator)
    expected, zeros = operator @ vectors, torch.zeros

    def no_room(*arguments, **options):
        if operator.batches_kept > 1:
            raise FAILURES["host"]
        return zeros(*arguments, **options)

    monkeypatch.setattr(torch, "zeros", no_room)
    assert_same(operator @ vectors, expected)
    assert operator.batches_kept == 1

    def never(*arguments, **options):
        raise FAILURES["host"]

    monkeypatch.setattr(torch, "zeros", never)
    with pytest.raises(InputError, match=r"out of memory for a block of 3 vectors: .*spectrum\.memory_gib"):
        operator @ vectors


def test_a_running_lanczos_goes_on_where_it_was(model, examples, monkeypatch):
    settings = FastSettings(top=3, lanczos_steps=12, start_vectors=2)
    wide = CurvatureOperator("hessian", model, LOSS, examples.batches(12))
    expected = fast_spectrum(wide, settings, torch.Generator().manual_seed(3))
    limited = CurvatureOperator("hessian", model, LOSS, examples.batches(12))
    play, played = TangentTape.play, []

    def from_the_fifth_on(tape, direction):
        played.append(tape)
        if len(played) > 5 and limited.batches_kept:
            raise FAILURES["CUDA"]
        return play(tape, direction)

    monkeypatch.setattr(TangentTape, "play", from_the_fifth_on)
    found = fast_spectrum(limited, settings, torch.Generator().manual_seed(3))
    assert limited.batches_kept == 0 and len(played) > 5 and found.products == expected.products
    assert_same(torch.as_tensor(found.pairs.values), torch.as_tensor(expected.pairs.values))


def test_one_example_that_does_not_fit_is_an_error_that_names_key_and_remedy(model, examples):
    for make in (
        lambda: CurvatureOperator("hessian", narrow(model, 0), LOSS, examples.batches(23)),
        lambda: CurvatureOperator("predictor", narrow(model, 0), LOSS, examples.batches(1)[:1]),
        lambda: squared_gradient_norm(narrow(model, 0), LOSS, examples.batches(4)),
        lambda: mean_loss_and_accuracy(narrow(model, 0), LOSS, examples.batches(4)),
    ):
        with pytest.raises(InputError, match=r"of 1 examples; nothing is left .*spectrum\.memory_gib.*\(CUDA out of"):
            make()


def test_a_batch_that_is_no_tensor_cannot_be_halved_and_the_error_says_so(model, examples):
    class OfDictionaries(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, data):
            raise FAILURES["CUDA"]

    batch = {"inputs": examples.inputs}, examples.targets
    with pytest.raises(InputError, match=r"batches of 23 examples; inputs or targets .* not cut: give smaller batches"):
        CurvatureOperator("hessian", OfDictionaries().eval(), LOSS, [batch])
