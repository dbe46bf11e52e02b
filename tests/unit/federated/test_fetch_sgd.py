"""FetchSGD against tables computed by hand and formulas with dense matrices."""

from dataclasses import replace

import pytest
import torch
from small_methods import DIMENSION, SEED, build, heavy_vector, random_vector, tables

from hessketch.federated.methods.fetch_sgd import FetchSGD
from hessketch.federated.settings import FederatedSettings
from hessketch.linalg.count_sketch import PLACEMENTS

# FetchSGD, by hand


def tiny_fetch(**options):
    """Coordinates 0 and 1 share column 0 with signs 1 and -1; 2 and 3 have a column each and sign 1."""
    for seed in range(20_000):
        method = FetchSGD(4, 1, 3, seed=seed, **{"top": 1} | options)
        buckets, signs = method.sketch.buckets_and_signs(0)
        if buckets.tolist() == [0, 0, 1, 2] and signs.tolist() == [1, -1, 1, 1]:
            return method
    raise AssertionError("no such hashes")


def changed(method, table, step=0, rate=1.0):
    return method.change(torch.tensor([table], dtype=torch.float32), step, rate).tolist()


def test_what_clients_send_is_the_sketch_of_their_update():
    method = tiny_fetch()
    assert method.encode(torch.tensor([7.0, 1.0, 2.0, -3.0]), 0).tolist() == [[6, 2, -3]]
    assert method.decode(torch.tensor([[6.0, 2.0, -3.0]]), 0).tolist() == [6, 0, 0, 0]


@pytest.mark.parametrize("error, left", [("zero", 0), ("subtract", -6)])
def test_cells_that_were_applied_are_zeroed_or_what_was_applied_is_subtracted(error, left):
    """Both of the two heaviest are estimated as 6 from the one cell; 12 is applied there and subtracted."""
    method = tiny_fetch(top=2, error=error)
    assert changed(method, [6, 2, 0]) == [6, -6, 0, 0]
    assert tables(method)[1] == [left, 2, 0]


def test_momentum_forgets_what_was_applied_by_hand():
    method = tiny_fetch(momentum=0.5)
    assert changed(method, [6, 2, 0]) == [6, 0, 0, 0]
    assert tables(method) == ([0, 2, 0], [0, 2, 0])
    assert changed(method, [0, 0, 1]) == [0, 0, 3, 0]
    assert tables(method) == ([0, 0, 1], [0, 0, 1])


def test_momentum_without_masking_by_hand():
    method = tiny_fetch(momentum=0.5, masking=False)
    assert changed(method, [6, 2, 0]) == [6, 0, 0, 0]
    assert tables(method) == ([6, 2, 0], [0, 2, 0])
    assert changed(method, [0, 0, 1]) == [3, 0, 0, 0]
    assert tables(method) == ([3, 1, 1], [0, 3, 1])


@pytest.mark.parametrize("rate, second", [("before", 3.0), ("after", 2.0)])
def test_the_rate_before_and_after_the_error_differ_where_it_changes(rate, second):
    """What was left in round 1 at rate 1 is 2, and 2 more come at rate 1/2: 2 + 1, or 1/2 (2 + 2)."""
    method = tiny_fetch(rate=rate)
    assert changed(method, [6, 2, 0], rate=1.0) == [6, 0, 0, 0]
    assert changed(method, [0, 2, 0], rate=0.5) == [0, 0, second, 0]


def test_the_rate_before_and_after_the_error_are_the_same_where_it_does_not_change():
    """Bit for bit, for a power of 2 rounds nothing."""
    settings = FederatedSettings(fetch_momentum=0.9)
    before, after = (build("fetch_sgd_ef-x10", replace(settings, fetch_rate=rate)) for rate in ("before", "after"))
    for step in range(6):
        total = before.encode(random_vector(seed=step), step)
        assert torch.equal(before.change(total, step, 0.25), after.change(total, step, 0.25))


def test_without_error_feedback_it_moves_and_remembers_momentum_alone():
    """The public code does not move there: it applies the entries of an error table that stays zero."""
    method = tiny_fetch(momentum=0.5, error_feedback=False)
    assert changed(method, [6, 2, 0], rate=0.5) == [3, 0, 0, 0]
    assert tables(method) == ([0, 2, 0], [0, 0, 0])
    assert changed(method, [0, 0, 1], rate=0.5) == [0, 0, 0.5, 0]
    assert tables(method) == ([0, 0, 1], [0, 0, 0])
    assert method.error_norm == 0


def test_the_norm_of_the_error_is_that_of_the_middle_row():
    method = FetchSGD(40, 3, 2, 1, 0)
    method.load_state({"momentum": torch.zeros(3, 2), "error": torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, -9.0]])})
    assert method.error_norm == 5


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("masking", [True, False])
@pytest.mark.parametrize("error", ["zero", "subtract"])
@pytest.mark.parametrize("rate_is", ["before", "after"])
def test_several_rows_and_rounds_equal_the_formulas_with_dense_matrices(remembers, masking, error, rate_is):
    options = {"momentum": 0.7, "masking": masking, "error": error, "rate": rate_is, "error_feedback": remembers}
    method = FetchSGD(30, 3, 11, 4, 8, **options)
    rows = []
    for row in range(3):
        buckets, signs = method.sketch.buckets_and_signs(row)
        rows.append(torch.zeros(11, 30, dtype=torch.float64).index_put_((buckets, torch.arange(30)), signs.double()))
    V, E = torch.zeros(3, 11, dtype=torch.float64), torch.zeros(3, 11, dtype=torch.float64)
    for step, rate in enumerate((1.0, 0.5, 0.5, 0.1)):
        update = random_vector(30, step, torch.float64)
        mean = torch.stack([S @ update for S in rows])
        V = 0.7 * V + mean
        E = E + (rate * V if rate_is == "before" else V)
        looked_at = E if remembers else V
        estimates = torch.stack([S.T @ table for S, table in zip(rows, looked_at, strict=True)]).median(0).values
        top = torch.zeros(30, dtype=torch.float64)
        chosen = estimates.abs().argsort(descending=True, stable=True)[:4]
        top[chosen] = estimates[chosen]
        applied = torch.stack([S @ top for S in rows])
        E = torch.where(applied != 0, 0, E) if error == "zero" else E - applied
        V = torch.where(applied != 0, 0, V) if masking else V
        expected = top if remembers and rate_is == "before" else rate * top
        assert torch.allclose(method.change(method.encode(update, step), step, rate), expected, rtol=0, atol=1e-12)
        assert torch.allclose(method.state()["momentum"], V, rtol=0, atol=1e-12)
        kept = E if remembers else torch.zeros_like(E)
        assert torch.allclose(method.state()["error"].double(), kept, rtol=0, atol=1e-12)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("error", ["zero", "subtract"])
def test_heavy_coordinates_are_applied_and_leave_the_error(placement, error):
    places = torch.tensor([3, 77, 500, 501, 1199])
    update = heavy_vector(places)
    method = FetchSGD(DIMENSION, 5, 200, 5, SEED, placement=placement, error=error)
    change = method.change(method.encode(update, 0), 0, 1.0)
    assert torch.equal(change.nonzero().squeeze(1), places)
    assert (change - update)[places].abs().max() < 0.5
    left = method.sketch.lift(method.state()["error"], "median")
    assert left[places].abs().max() < (1e-6 if error == "zero" else 0.5)
    assert method.error_norm < 0.1 * float(update.norm())
    # The next round brings nothing: no heavy coordinate is applied again.
    again = method.change(method.encode(torch.zeros(DIMENSION), 1), 1, 1.0)
    assert again.abs().max() < 1


def test_what_is_not_applied_in_a_round_is_in_later_ones():
    """One coordinate a round: the five heavy ones come one after the other, the heaviest first."""
    update = torch.zeros(DIMENSION)
    places = torch.tensor([900, 20, 500, 7, 33])
    update[places] = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0])
    method = FetchSGD(DIMENSION, 5, 200, 1, SEED)
    changes = [method.change(method.encode(update if step == 0 else 0 * update, step), step, 1.0) for step in range(6)]
    assert [int(change.abs().argmax()) for change in changes[:5]] == places.tolist()
    assert torch.equal(sum(changes[:5]), update)
    assert not changes[5].any()
