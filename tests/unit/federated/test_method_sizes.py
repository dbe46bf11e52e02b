"""Methods as runs have them: restored states, sizes by their reduction, what is refused, descent on a quadratic."""

import math
from dataclasses import replace

import pytest
import torch
from small_methods import DIMENSION, LABELS, SEED, SETTINGS, build, every_method, every_setting, random_vector

from hessketch.errors import InputError
from hessketch.federated.error_feedback import ErrorMemory
from hessketch.federated.methods.count_sketch import SketchedAveraging
from hessketch.federated.methods.fetch_sgd import FetchSGD
from hessketch.federated.methods.registry import build_method, require_reduction, require_rows, size_of
from hessketch.federated.methods.top_r import LocalTopR
from hessketch.federated.methods.uncompressed import Uncompressed
from hessketch.federated.settings import FederatedSettings
from hessketch.linalg.count_sketch import PLACEMENTS, CountSketch
from hessketch.trainers import Trainer

# State


@every_method
@every_setting
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_restored_server_makes_the_same_changes_bit_for_bit(label, settings, dtype):
    method, restored = build(label, settings), build(label, settings)

    def change(method, step):
        return method.change(method.encode(random_vector(seed=step, dtype=dtype), step), step, 0.5)

    for step in range(3):
        change(method, step)
    state = method.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    expected = [change(method, step) for step in range(3, 6)]
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    restored.load_state(kept)
    assert all(torch.equal(change(restored, step), expected[step - 3]) for step in range(3, 6))
    assert bool(kept) == label.startswith("fetch_sgd")


@pytest.mark.parametrize("label", [label for label in LABELS if not label.startswith("fetch_sgd")])
def test_a_state_of_another_method_is_refused(label):
    with pytest.raises(ValueError, match=r"has no state, \['error'\] given"):
        build(label).load_state({"error": torch.zeros(2)})


# By label


@pytest.mark.parametrize(
    "label, size, numbers",
    [
        ("count_sketch-x1", 1200, 1200),
        ("count_sketch-x7", 171, 171),
        ("count_sketch-x1200", 1, 1),
        ("top_r-x1", 600, 600),
        ("top_r-x2.5", 240, 240),
        ("top_r-x600", 1, 1),
        ("fetch_sgd-x1", 240, 1200),
        ("fetch_sgd_ef-x7", 34, 170),
        ("fetch_sgd-x240", 1, 5),
        ("uncompressed", 1200, 1200),
    ],
)
def test_sizes_follow_from_the_reduction(label, size, numbers):
    assert size_of(Trainer.parse(label), DIMENSION, SETTINGS[""]) == size
    assert build(label).upload_numbers == numbers


def test_a_reduction_that_its_label_rounds_up_is_still_allowed():
    """2000 / 3 is 666.666666667 in a label, a little more than what can be."""
    three = FederatedSettings(rows=3)
    assert size_of(Trainer("count_sketch", reduction=2000 / 3), 2000, three) == 1
    assert size_of(Trainer.parse("count_sketch-x666.666666667"), 2000, three) == 1
    assert size_of(Trainer("count_sketch", reduction=1.5), 2000, three) == 444


@pytest.mark.parametrize(
    "label, dimension, least, most",
    [
        ("count_sketch-x1201", 1200, 1, "1200"),
        ("count_sketch_ef-x601", 1200, 2, "600"),
        ("top_r_ef-x600.5", 1200, 1, "600"),
        ("fetch_sgd-x2234793", 11_173_962, 1, "2234792.4"),
        ("count_sketch-x11173963", 11_173_962, 1, "11173962"),
    ],
)
def test_reductions_that_a_network_is_too_small_for_are_refused_with_the_range(label, dimension, least, most):
    settings, trainer = FederatedSettings(rows=least), Trainer.parse(label)
    expected = (
        f"{label}: a dimension reduction of {label.split('x')[1]} with {dimension} parameters; "
        f"allowed: from 1 to {most}; choose a smaller one or a larger network"
    )
    for refuses in (require_reduction, size_of):
        with pytest.raises(InputError) as caught:
            refuses(trainer, dimension, settings)
        assert str(caught.value) == expected
    with pytest.raises(InputError) as caught:
        build_method(trainer, dimension, settings, 0)
    assert str(caught.value) == expected
    require_reduction(replace(trainer, reduction=float(most)), dimension, settings)


@pytest.mark.parametrize(
    "label, settings, dimension, said, largest",
    [
        ("count_sketch-x10", {"rows": 11}, 10, "rows: 11 given with 10 .* from 1 to 10;", {"rows": 10}),
        ("fetch_sgd-x10", {"fetch_rows": 11}, 10, "fetch_rows: 11 .* from 1 to 9, odd;", {"fetch_rows": 9}),
        ("fetch_sgd-x10", {"fetch_rows": 13}, 11, "fetch_rows: 13 .* from 1 to 11, odd;", {"fetch_rows": 11}),
        ("top_r-x1", {}, 1, "top_r: 1 parameters given; allowed: at least 2; choose a larger network", None),
    ],
)
def test_where_no_reduction_is_possible_the_rows_are_named_instead(label, settings, dimension, said, largest):
    trainer = Trainer.parse(label)
    for refuses in (require_rows, size_of):
        with pytest.raises(InputError, match=said):
            refuses(trainer, dimension, FederatedSettings(**settings))
    if largest is not None:
        require_rows(trainer, dimension, FederatedSettings(**largest))
        assert size_of(replace(trainer, reduction=1.0), dimension, FederatedSettings(**largest)) == 1


def test_settings_reach_the_methods():
    settings = FederatedSettings(
        rows=3, placement="shift", hashes="fixed", fetch_rows=7, fetch_top=0.5, fetch_momentum=0.8, fetch_masking=False,
        fetch_error="subtract", fetch_rate="after",
    )  # fmt: skip
    sketched = build("count_sketch_ef-x10", settings)
    assert torch.equal(
        sketched.encode(random_vector(), 5), CountSketch(1200, 3, 40, SEED, placement="shift").apply(random_vector())
    )
    assert sketched.scale == 1 / (1 + 1199 / 120)
    fetch = build("fetch_sgd-x10", settings)
    assert (fetch.sketch.rows, fetch.sketch.columns, fetch.sketch.placement) == (7, 17, "shift")
    assert fetch.top == round(0.5 * 17)
    total = fetch.encode(random_vector(), 0)
    same = FetchSGD(
        1200, 7, 17, 8, SEED, momentum=0.8, masking=False, error="subtract", rate="after", placement="shift",
        error_feedback=False,
    )  # fmt: skip
    assert torch.equal(fetch.change(total, 0, 0.5), same.change(total, 0, 0.5))


@pytest.mark.parametrize("share, top", [(1e-9, 1), (0.1, 24), (1.0, 240), (1e6, 1200)])
def test_fetch_sgd_recovers_at_least_one_and_at_most_all(share, top):
    assert build("fetch_sgd-x1", FederatedSettings(fetch_top=share)).top == top


def test_what_else_is_refused_and_what_is_said():
    def said(function, *arguments, **options):
        with pytest.raises(InputError) as caught:
            function(*arguments, **options)
        return str(caught.value)

    assert said(build_method, Trainer("sgd"), 10, FederatedSettings(), 0) == (
        "sgd is no federated trainer; allowed: count_sketch-x10, uncompressed and the like"
    )
    for count in (0, 11):
        assert said(LocalTopR, 10, count) == f"top-r with r = {count} of p = 10; allowed: r from 1 to 10"
        assert said(FetchSGD, 10, 3, 2, count, 0) == f"the {count} heaviest of 10 entries asked for; allowed: 1 to 10"
    assert said(FetchSGD, 10, 4, 2, 1, 0) == (
        "4 rows given; FetchSGD lifts by the median; allowed: an odd number of rows"
    )


# A quadratic of 2000 coordinates with curvatures from 1 to 1e-4, reduced to 100 numbers


def loss_after(method, rate, rounds):
    """The loss over that at the start, after rounds of one gradient step of one client; infinite above 1e6."""
    curvatures = torch.logspace(0, -4, 2000, dtype=torch.float64)
    theta = torch.ones_like(curvatures)
    memory = ErrorMemory(2000, torch.device("cpu"))
    start = loss = float(curvatures.sum())
    for step in range(rounds):
        update = rate * curvatures * theta
        due = memory.due(0, update) if method.error_feedback else update
        payload = method.encode(due, step)
        if method.error_feedback:
            memory.keep(0, due, method.decode(payload, step))
        theta = theta - method.change(payload, step, 1.0)
        loss = float((curvatures * theta.square()).sum())
        if not loss < 1e6 * start:
            return math.inf
    return loss / start


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_fresh_sketches_descend_like_gradient_descent_and_a_fixed_one_stalls(placement):
    plain = loss_after(Uncompressed(2000), 0.1, 600)
    fresh = loss_after(SketchedAveraging(2000, 1, 100, 5, placement=placement), 0.1, 600)
    fixed = loss_after(SketchedAveraging(2000, 1, 100, 5, placement=placement, fresh=False), 0.1, 600)
    assert plain == pytest.approx(0.00821, rel=0.01)
    assert plain < fresh < 1.3 * plain
    assert 0.5 < fixed < 1


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_error_feedback_descends_with_the_scaled_lift_and_diverges_with_the_unscaled(placement):
    plain = loss_after(Uncompressed(2000), 0.1, 600)
    method = SketchedAveraging(2000, 1, 100, 5, placement=placement, error_feedback=True)
    assert loss_after(method, 0.1, 600) == pytest.approx(plain, rel=0.1)
    method.scale = 1.0
    for rate in (0.02, 0.1, 0.5):
        assert loss_after(method, rate, 60) == math.inf
