"""The GGN by classes: an exact sum of parts, each known by products, the parts of the means by small matrices too."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev

from hessketch.curvature.class_mean_operators import PARTS, part_operator
from hessketch.curvature.class_means import PARTS_OF_MEANS, ClassMeans, class_means, embedding
from hessketch.curvature.class_terms import class_terms, worth_keeping
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.mlp import mlp

UNEQUAL = (5, 2, 4)


def network(classes: int = 3, norm: str = "none", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = mlp(4, classes, hidden=(5,), norm=norm, activation=nn.Tanh).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    if norm == "batch":
        model(3 * torch.randn(50, 4, dtype=torch.float64) + 1)  # running statistics that are not those of new layers
    return model.eval()


def examples(counts=UNEQUAL, seed: int = 1) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.cat([torch.full((count,), c) for c, count in enumerate(counts)])
    targets = targets[torch.randperm(len(targets), generator=generator)]
    return Examples(torch.randn(len(targets), 4, generator=generator, dtype=torch.float64), targets, len(counts))


def deltas(model: nn.Module, data: Examples) -> torch.Tensor:
    """sqrt(p_ic') J_i^T (e_c' - p_i) as (n, C, p), by the Jacobian of torch.func."""
    named = {name: parameter.detach() for name, parameter in model.named_parameters()}
    jacobian = jacrev(lambda pieces: functional_call(model, pieces, (data.inputs,)))(named)
    jacobian = torch.cat([piece.flatten(2) for piece in jacobian.values()], 2)
    probabilities = model(data.inputs).detach().softmax(1)
    eye = torch.eye(data.classes, dtype=torch.float64)
    weights = probabilities.sqrt()[:, :, None] * (eye - probabilities[:, None, :])
    return weights @ jacobian


def outer(rows: torch.Tensor) -> torch.Tensor:
    return rows.T @ rows


def oracle(model: nn.Module, data: Examples) -> dict[str, torch.Tensor]:
    """Every part as a matrix, straight from its definition."""
    all_of, n, classes = deltas(model, data), len(data), data.classes
    p = all_of.shape[2]
    parts = {part: torch.zeros(p, p, dtype=torch.float64) for part in PARTS}
    parts["G"] = outer(all_of.flatten(0, 1)) / n
    for c in range(classes):
        own = all_of[data.targets == c]
        if not len(own):
            continue
        parts["G0"] += outer(own[:, c]) / n
        cross = torch.stack([own[:, other].mean(0) for other in range(classes) if other != c])
        mean, weight = cross.mean(0), len(own) / n
        parts["G1"] += weight * (classes - 1) * torch.outer(mean, mean)
        parts["G2"] += weight * outer(cross - mean)
        parts["G1+2"] += weight * outer(cross)
        for place, other in enumerate(other for other in range(classes) if other != c):
            parts["G3"] += outer(own[:, other] - cross[place]) / n
    return parts


CASES = {
    "unequal classes": (network(), examples()),
    "a class without examples": (network(), examples((4, 0, 3))),
    "two classes": (network(2), examples((6, 3))),
    "one example": (network(), examples((0, 1, 0))),
    "batch norm": (network(norm="batch"), examples()),
}


@cache
def matrices(name: str) -> dict[str, torch.Tensor]:
    return oracle(*CASES[name])


@pytest.mark.parametrize("case", CASES)
def test_the_parts_sum_to_the_ggn_of_cross_entropy(case):
    model, data = CASES[case]
    means = class_means(model, data)
    eye = torch.eye(means.cross.shape[2], dtype=torch.float64)
    parts = {part: part_operator(part, model, data.batches(4), means) @ eye for part in PARTS}
    scale = float(parts["G"].abs().max())
    total = parts["G0"] + parts["G1"] + parts["G2"] + parts["G3"]
    torch.testing.assert_close(total, parts["G"], rtol=0, atol=1e-10 * scale)
    torch.testing.assert_close(parts["G1"] + parts["G2"], parts["G1+2"], rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_each_operator_is_the_matrix_of_its_definition_by_the_network_and_by_kept_terms(case, kept):
    model, data = CASES[case]
    terms = class_terms(model, data) if kept else None
    means, expected = class_means(model, data, batch_size=3), matrices(case)
    p, atol = means.cross.shape[2], 1e-12 * float(expected["G"].abs().max())
    vector = torch.linspace(-1, 1, p, dtype=torch.float64)
    for part in PARTS:
        operator = part_operator(part, model, data.batches(3), means, terms=terms)
        assert tuple(operator.shape) == (p, p) and operator.dtype == torch.float64
        found = operator @ torch.eye(p, dtype=torch.float64)
        torch.testing.assert_close(found, expected[part], rtol=0, atol=atol, msg=part)
        torch.testing.assert_close(operator @ vector, expected[part] @ vector, rtol=1e-9, atol=10 * atol, msg=part)


@pytest.mark.parametrize("case", CASES)
def test_eigenvalues_by_inner_products_are_those_of_the_matrix(case):
    model, data = CASES[case]
    means, atol = class_means(model, data), 1e-12 * float(matrices(case)["G"].abs().max())
    for part in PARTS_OF_MEANS:
        found = means.eigenvalues(part)
        assert len(found) == data.classes * {"G1": 1, "G2": data.classes - 2, "G1+2": data.classes - 1}[part]
        expected = torch.linalg.eigvalsh(matrices(case)[part]).flip(0).numpy()
        np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-10, atol=atol, err_msg=part)
        assert abs(expected[len(found) :]).max() < atol, part
        if case == "unequal classes":  # nothing that is returned is a zero
            assert found.min() > 1e3 * atol, part


def test_there_are_no_more_eigenvalues_than_parameters():
    generator = torch.Generator().manual_seed(0)
    means = placed(torch.randn(4, 4, 3, generator=generator))
    assert [len(means.eigenvalues(part)) for part in PARTS_OF_MEANS] == [3, 3, 3]
    vectors = means.cross[~torch.eye(4, dtype=torch.bool)]
    np.testing.assert_allclose(means.eigenvalues("G1+2"), torch.linalg.eigvalsh(outer(vectors) / 4).flip(0), rtol=1e-10)


def test_eigenvalues_are_of_a_known_part_of_the_means():
    with pytest.raises(InputError, match="part 'G0' is unknown; allowed: G1, G2"):
        placed(torch.ones(3, 3, 2)).eigenvalues("G0")


@given(counts=st.lists(st.integers(0, 4), min_size=2, max_size=4).filter(any), seed=st.integers(0, 99))
@settings(max_examples=6)
def test_no_part_has_a_negative_eigenvalue_and_the_means_leave_the_least(counts, seed):
    model, data = network(len(counts), seed=seed), examples(counts, seed)
    means, p = class_means(model, data), 4 * 5 + 5 + 5 * len(counts) + len(counts)
    eye = torch.eye(p, dtype=torch.float64)
    formed = {part: part_operator(part, model, data.batches(9), means) @ eye for part in PARTS}
    scale = float(formed["G"].trace())
    assert all(float(torch.linalg.eigvalsh(matrix)[0]) > -1e-12 * scale for matrix in formed.values())
    traces = {part: float(matrix.trace()) for part, matrix in formed.items()}
    assert sum(traces[part] for part in ("G0", "G1", "G2", "G3")) == pytest.approx(scale, rel=1e-10)
    assert float(means.eigenvalues("G1+2").sum()) == pytest.approx(traces["G1+2"], rel=1e-9, abs=1e-12 * scale)


def test_means_are_those_of_the_examples_whatever_the_batches():
    model, data = network(), examples((5, 0, 4))
    found, terms, seen = class_means(model, data, batch_size=2), deltas(model, data), []
    whole = class_means(model, data, progress=lambda done, total: seen.append((done, total)))
    for c in (0, 2):
        torch.testing.assert_close(found.cross[c], terms[data.targets == c].mean(0), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found.cross, whole.cross, rtol=1e-11, atol=1e-14)
    assert found.counts.tolist() == [5, 0, 4] and not found.cross[1].any()
    torch.testing.assert_close(found.of_classes()[2], found.cross[2, :2].mean(0))
    assert seen == [(5, 9), (9, 9)]


def test_a_float32_network_gives_float32_means_of_float64_inputs():
    data = examples()
    found = class_means(network().float(), data)
    assert found.cross.dtype == torch.float32 and found.gram.dtype == torch.float64
    torch.testing.assert_close(found.cross.double(), class_means(network(), data).cross, rtol=1e-4, atol=1e-5)


def test_terms_are_those_of_the_definition_in_the_precision_of_the_network():
    model, data = CASES["batch norm"]
    seen = []
    found = class_terms(model, data, progress=lambda done, total: seen.append((done, total)))
    torch.testing.assert_close(found.rows, deltas(model, data), rtol=1e-10, atol=1e-13)
    assert seen[-1] == (11, 11)
    single = class_terms(network(norm="batch").float(), data)
    assert single.rows.dtype == torch.float32
    torch.testing.assert_close(single.rows.double(), found.rows, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="one output a class"):
        class_terms(model, Examples(data.inputs, data.targets, 4))


def test_terms_are_kept_of_convolutions_that_fit_into_memory_and_of_no_fully_connected_network():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).eval()
    data = Examples(torch.randn(5, 1, 8, 8), torch.arange(5) % 3, 3)
    p = 2 * 9 + 2 + 2 * 3 + 3
    assert 2 * 3 * p < 2 * (64 * 18 + 6)  # operations of an example against its gradients' numbers
    assert worth_keeping(model, data, None) and worth_keeping(model, data, 5 * 3 * p * 4)
    assert not worth_keeping(model, data, 5 * 3 * p * 4 - 1)
    assert not worth_keeping(network(), examples(), None)


def placed(vectors: torch.Tensor) -> ClassMeans:
    """Means of which delta_{c,c'} are given (C, C, p)."""
    return ClassMeans(vectors.double(), torch.full((len(vectors),), 3))


def test_the_first_two_coordinates_are_the_principal_components_of_the_points():
    means = class_means(network(), examples())
    points = torch.cat([means.cross.flatten(0, 1), means.of_classes()])
    centred = points - points.mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    expected = u[:, :2] * s[:2]
    expected *= expected.gather(0, expected.abs().argmax(0, keepdim=True)).sign()
    torch.testing.assert_close(embedding(means, 0)[:, :2], expected, rtol=1e-9, atol=1e-10)


def test_tsne_repeats_and_keeps_the_groups_of_the_classes_together():
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.eye(4)[:, None, :]
    means = placed(centres + torch.randn(4, 4, 4, generator=generator))
    found = embedding(means, 7)
    assert torch.equal(found, embedding(means, 7)) and found.shape == (20, 4) and torch.isfinite(found).all()
    classes = torch.cat([torch.arange(4).repeat_interleave(4), torch.arange(4)])
    apart = torch.cdist(found[:, 2:], found[:, 2:]).fill_diagonal_(math.inf)
    assert (classes[apart.argmin(1)] == classes).all()


def test_points_of_classes_without_examples_have_no_place_and_few_points_no_tsne():
    found = embedding(class_means(network(), examples((4, 0, 3))), 0)
    known = torch.tensor([True] * 3 + [False] * 3 + [True] * 3 + [True, False, True])
    assert torch.isfinite(found[known]).all() and found[~known].isnan().all()
    single = embedding(class_means(network(2), examples((4, 0))), 0)
    assert torch.isfinite(single[[0, 1, 4], :2]).all() and single[:, 2:].isnan().all()


def test_what_is_not_measurable_is_refused():
    model, data = network(), examples()
    with pytest.raises(InputError, match="no examples"):
        class_means(model, Examples(data.inputs[:0], data.targets[:0], 3))
    with pytest.raises(InputError, match="eval"):
        class_means(network(norm="batch").train(), data)
    with pytest.raises(InputError, match=r"one output a class.*\(5, 3\) for 4 classes"):
        class_means(model, Examples(data.inputs, data.targets, 4))
    with pytest.raises(InputError, match="one output a class"):
        class_means(network(1), examples((3, 3)))
    with pytest.raises(InputError, match="part 'G4' is unknown"):
        part_operator("G4", model, data.batches(5), class_means(model, data))
    with torch.no_grad():
        model[-1].bias[0] = math.nan
    with pytest.raises(NotFiniteError):
        class_means(model, data)


def test_too_little_memory_is_said_before_with_what_would_fit():
    model, data = network(), examples()
    needed = 10 * 43 * 8 + 6 * 8 * 12**2
    class_means(model, data, memory=needed)
    with pytest.raises(InputError, match=r"9 cross-class means of 43 parameters.*with 3 classes at most 42 parameters"):
        class_means(model, data, memory=needed - 1)
