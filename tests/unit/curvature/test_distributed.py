"""Operators over two processes against one, and the arithmetic that an operator asks for."""

import pytest
import torch
from torch import distributed, multiprocessing

from hessketch.curvature.losses import LOSSES
from hessketch.curvature.operators import ComponentOperators, CurvatureOperator
from hessketch.curvature.precision import arithmetic
from hessketch.networks.registry import build_network

NAMES = ("hessian", "ggn", "residual", "second_moment", "gradient_covariance")
LOSS = LOSSES["cross_entropy"]


def _setting():
    model = build_network("vgg11", input_shape=(1, 32, 32), classes=3, width=1 / 32, norm="batch", seed=4).eval()
    generator = torch.Generator().manual_seed(5)
    inputs, targets = torch.randn(14, 1, 32, 32, generator=generator), torch.randint(0, 3, (14,), generator=generator)
    vectors = torch.randn(sum(p.numel() for p in model.parameters()), 2, generator=generator)
    return model, inputs, targets, vectors


def _one_of_two(rank: int, meeting: str, results: str) -> None:
    """Its own share of the examples, of unequal size; saves every operator's product."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    model, inputs, targets, vectors = _setting()
    share = slice(0, 9) if rank == 0 else slice(9, 14)
    batches = [(inputs[share], targets[share])]
    group = distributed.group.WORLD
    calls = _count_all_reduces()
    operators = {name: CurvatureOperator(name, model, LOSS, batches, group=group) for name in NAMES}
    before = calls[0]
    products = {name: operator @ vectors for name, operator in operators.items()}
    assert calls[0] - before == len(NAMES), "one all-reduce a product, whatever the number of vectors"
    components = ComponentOperators(model, LOSS, batches, memory=0, group=group)
    products |= {f"component {name}": p for name, p in components.products(vectors).items()}
    torch.save({**products, "examples": components.examples}, f"{results}/{rank}.pt")
    distributed.destroy_process_group()


def _count_all_reduces() -> list[int]:
    calls, original = [0], distributed.all_reduce

    def counted(*args, **kwargs):
        calls[0] += 1
        return original(*args, **kwargs)

    distributed.all_reduce = counted
    return calls


def test_two_processes_with_a_share_of_the_examples_each_agree_with_one_to_1e_6(tmp_path):
    multiprocessing.spawn(_one_of_two, (str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    model, inputs, targets, vectors = _setting()
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert found[0].pop("examples") == found[1].pop("examples") == 14
    expected = {name: CurvatureOperator(name, model, LOSS, [(inputs, targets)]) @ vectors for name in NAMES}
    expected |= {f"component {name}": expected[name] for name in NAMES[:3]}
    for name, product in expected.items():
        assert torch.equal(found[0][name], found[1][name]), name
        assert torch.linalg.norm(found[0][name] - product) <= 1e-6 * torch.linalg.norm(product), name


def _state():
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    return [b.fp32_precision for b in backends], torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("tf32, deterministic", [(False, False), (True, True), (False, True)])
def test_tf32_is_off_and_determinism_on_only_as_asked_and_the_process_stays_as_it_was(tf32, deterministic):
    before = _state()
    with arithmetic(tf32, deterministic):
        precision, repeatable = _state()
        assert precision == ["tf32" if tf32 else "ieee"] * 2
        assert repeatable is (deterministic or before[1])
    assert _state() == before
    with pytest.raises(KeyError), arithmetic(tf32, deterministic):
        raise KeyError
    assert _state() == before


def test_an_operator_says_its_arithmetic():
    model, inputs, targets, _ = _setting()
    operator = CurvatureOperator("hessian", model, LOSS, [(inputs, targets)], tf32=True, deterministic=True)
    assert operator.arithmetic == {"float32_products": "tf32 allowed", "deterministic": True}
