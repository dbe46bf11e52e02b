"""A device that runs out of memory: fewer examples at once, the same numbers, and a line in the log."""

import gc
import logging
import weakref

import pytest
import torch
from torch import nn

from hessketch.curvature import dense, output_gradients, per_example
from hessketch.curvature.averages import ExampleAverage
from hessketch.curvature.class_means import class_means
from hessketch.curvature.dense import dense_hessian
from hessketch.curvature.gradients import squared_gradient_norm
from hessketch.curvature.halving import BatchLimit
from hessketch.curvature.losses import LOSSES, mean_loss_and_accuracy
from hessketch.curvature.operators import BlockDiagonalOperator, ComponentOperators, CurvatureOperator
from hessketch.curvature.output_gradients import ggn_moment
from hessketch.curvature.per_example import per_example_gradients
from hessketch.curvature.points import ParameterSpace, means_at
from hessketch.curvature.tangents import TangentTape
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum
from hessketch.progress import notes, notes_said
from hessketch.provenance import Stopwatch

pytestmark = pytest.mark.usefixtures("quick_collections")
LOSS = LOSSES["cross_entropy"]
NAMES = ("hessian", "ggn", "residual", "second_moment", "gradient_covariance")
FAILURES = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "host": RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 8 bytes."),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "oneDNN": RuntimeError("could not create a primitive"),
    "Python": MemoryError(),
}


class Narrow(nn.Module):
    """A network on a device without room for more than so many examples at once."""

    def __init__(self, inner, room, failure=FAILURES["CUDA"]):
        super().__init__()
        self.inner, self.room, self.failure, self.refused = inner, room, failure, 0

    def forward(self, inputs):
        if len(inputs) > self.room:
            self.refused += 1
            raise self.failure
        return self.inner(inputs)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()


@pytest.fixture(scope="module")
def examples():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(23, 5, generator=generator, dtype=torch.float64)
    return Examples(inputs, torch.randint(0, 3, (23,), generator=generator), 3)


def narrow(model, room, failure=FAILURES["CUDA"]):
    return Narrow(model, room, failure).eval()


def vectors_of(operator, columns=3):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(operator.shape[0], columns, generator=generator, dtype=torch.float64)


def assert_same(found, expected):
    """Up to the rounding of float64."""
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.fixture
def said():
    """What the log of a job would say."""
    texts = []
    with notes_said(texts.append):
        yield texts


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


def vectors_of_size(model):
    p = sum(q.numel() for q in model.parameters())
    return torch.randn(p, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


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
