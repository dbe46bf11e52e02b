"""Methods against federated averaging, tables computed by hand, their own messages, and a quadratic of known course."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hessketch.errors import InputError
from hessketch.federated.error_feedback import ErrorMemory
from hessketch.federated.messages import deserialise, parts_of, serialise, size_in_bytes
from hessketch.federated.methods.count_sketch import SketchedAveraging
from hessketch.federated.methods.fetch_sgd import FetchSGD
from hessketch.federated.methods.interface import sparse_message
from hessketch.federated.methods.registry import build_method, require_reduction, require_rows, size_of
from hessketch.federated.methods.top_r import LocalTopR
from hessketch.federated.methods.uncompressed import Uncompressed
from hessketch.federated.settings import FederatedSettings
from hessketch.linalg.count_sketch import PLACEMENTS, CountSketch
from hessketch.trainers import Trainer

DIMENSION, SEED = 1200, 21
SETTINGS = {
    "": FederatedSettings(),
    "three rows shifted": FederatedSettings(rows=3, placement="shift"),
    "fixed hashes": FederatedSettings(hashes="fixed", placement="shift"),
    "as in the public code": FederatedSettings(fetch_momentum=0.9, fetch_rate="after"),
    "as published": FederatedSettings(fetch_momentum=0.9, fetch_masking=False, fetch_error="subtract"),
}
LABELS = (
    "uncompressed",
    "count_sketch-x10",
    "count_sketch_ef-x10",
    "top_r-x10",
    "top_r_ef-x2.5",
    "fetch_sgd-x10",
    "fetch_sgd_ef-x10",
)
every_method = pytest.mark.parametrize("label", LABELS)
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def build(label, settings=SETTINGS[""], dimension=DIMENSION, seed=SEED):
    return build_method(Trainer.parse(label), dimension, settings, seed)


def random_vector(dimension=DIMENSION, seed=0, dtype=torch.float32):
    return torch.randn(dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def heavy_vector(places, size=10.0, noise=0.02, dimension=DIMENSION):
    x = noise * random_vector(dimension, 5)
    x[places] = size * (1 - 2 * (torch.arange(len(places)) % 2)).float()
    return x


# What every method is


@every_method
@every_setting
def test_a_method_says_what_it_is(label, settings):
    method, trainer = build(label, settings), Trainer.parse(label)
    assert method.linear == (trainer.method != "top_r")
    # FetchSGD's memory is the server's table, no client's.
    assert method.error_feedback == (trainer.error_feedback and trainer.method != "fetch_sgd")
    payload = method.encode(random_vector(), 3)
    assert method.decode(payload, 3).shape == (DIMENSION,)
    assert method.change(payload, 3, 0.5).shape == (DIMENSION,)


@every_method
@every_setting
def test_the_mean_of_what_linear_methods_encode_is_the_encoded_mean(label, settings):
    method = build(label, settings)
    updates = torch.stack([random_vector(seed=seed, dtype=torch.float64) for seed in range(7)])
    weights = torch.linspace(1, 2, 7, dtype=torch.float64)
    weights /= weights.sum()
    encoded_mean = method.encode(weights @ updates, 4)
    mean_of_encoded = sum(weight * method.encode(update, 4) for weight, update in zip(weights, updates, strict=True))
    difference = float((encoded_mean - mean_of_encoded).abs().max())
    assert difference < 1e-12 if method.linear else difference > 0.01


@every_method
def test_nothing_global_is_drawn_and_the_update_is_left_alone(label):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()
    method, update = build(label), random_vector()
    kept = update.clone()
    payload = method.encode(update, 0)
    method.decode(payload, 0)
    method.change(payload, 0, 0.3)
    assert torch.equal(update, kept)
    assert torch.equal(before, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_before, np.random.get_state(), strict=True))


@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_methods_that_send_everything_are_federated_averaging_bit_for_bit(rate, seed):
    mean, shifted = random_vector(seed=seed), FederatedSettings(placement="shift")
    expected = rate * mean
    whole = [Uncompressed(DIMENSION), LocalTopR(DIMENSION, DIMENSION), build("count_sketch-x1", shifted, seed=seed)]
    for method in (*whole, build("count_sketch-x1", replace(shifted, hashes="fixed"), seed=seed)):
        for step in range(3):
            assert torch.equal(method.change(method.encode(mean, step), step, rate), expected)
    assert whole[2].upload_numbers == DIMENSION
    assert whole[2].expected_error(mean) == whole[1].expected_error(mean) == whole[0].expected_error(mean) == 0


def test_hashes_are_fresh_each_round_or_the_same_in_all():
    update = random_vector()
    for hashes, same in (("fresh", False), ("fixed", True)):
        method = build("count_sketch-x10", FederatedSettings(hashes=hashes))
        tables = [method.encode(update, step) for step in (0, 1, 0)]
        assert torch.equal(tables[0], tables[1]) == same
        assert torch.equal(tables[0], tables[2])


def decoded_errors(method, update, rounds):
    """|decode(encode(update)) - update|^2 / |update|^2, round by round."""
    missing = [method.decode(method.encode(update, step), step) - update for step in range(rounds)]
    return [float(part.square().sum() / update.square().sum()) for part in missing]


@pytest.mark.parametrize("label", ["count_sketch-x10", "count_sketch_ef-x10", "count_sketch_ef-x2.5"])
@pytest.mark.parametrize("settings", ["", "three rows shifted"])
@pytest.mark.parametrize("make", [random_vector, lambda: heavy_vector([3, 700])], ids=["even", "concentrated"])
def test_the_error_of_sketches_is_that_of_theory(label, settings, make):
    method, update = build(label, SETTINGS[settings]), make().double()
    measured = np.mean(decoded_errors(method, update, 150))
    assert measured == pytest.approx(method.expected_error(update), rel=0.05)


def test_what_other_methods_say_of_their_error():
    update = random_vector()
    for label in ("top_r-x10", "top_r_ef-x2.5"):
        method = build(label)
        assert method.expected_error(update) == 1 - method.count / DIMENSION
        assert 0 < decoded_errors(method, update, 1)[0] < method.expected_error(update)
    assert build("uncompressed").expected_error(update) == decoded_errors(build("uncompressed"), update, 1)[0] == 0
    assert math.isnan(build("fetch_sgd-x10").expected_error(update))


# Bytes


@every_method
@every_setting
def test_bytes_are_those_of_the_serialised_messages(label, settings):
    method = build(label, settings)
    for step, clients in enumerate((1, 3, 40)):
        payloads = [method.encode(random_vector(seed=100 * step + client), step) for client in range(clients)]
        for payload in payloads:
            sent = method.upload(payload)
            assert parts_of(sent) == method.upload_parts
            assert size_in_bytes(method.upload_parts) == len(serialise(sent))
        total = sum(payloads) / clients
        change = method.change(total, step, 0.5)
        sent = method.download(total, change)
        assert parts_of(sent) == method.download_parts(total, change)
        assert size_in_bytes(method.download_parts(total, change)) == len(serialise(sent))


@every_method
@every_setting
@pytest.mark.parametrize("zeros", [DIMENSION, DIMENSION - 3], ids=["all zero", "three nonzero"])
def test_bytes_of_updates_with_fewer_nonzero_entries_than_are_sent(label, settings, zeros):
    method, update = build(label, settings), random_vector()
    update[:zeros] = 0
    payload = method.encode(update, 0)
    assert parts_of(method.upload(payload)) == method.upload_parts
    assert size_in_bytes(method.upload_parts) == len(serialise(method.upload(payload)))
    change = method.change(payload, 0, 0.5)
    sent = method.download(payload, change)
    assert size_in_bytes(method.download_parts(payload, change)) == len(serialise(sent))
    assert torch.equal(rebuilt_change(label, settings, serialise(sent), 0.5), change)


@every_method
def test_all_methods_of_one_reduction_send_the_same_number_of_bytes(label):
    method, reduction = build(label), Trainer.parse(label).reduction or 1
    numbers = [part.count for part in method.upload_parts]
    assert 4 * sum(numbers) == 4 * DIMENSION / reduction
    assert numbers[0] == method.upload_numbers
    assert len(numbers) == (2 if "top_r" in label else 1)


def from_sparse(values, indices):
    vector = torch.zeros(DIMENSION)
    vector[indices.long()] = values
    return vector


def rebuilt_change(label, settings, data, rate):
    """The change, by a party that knows trainer, settings, seed and the round's rate, and gets a message."""
    received, trainer = deserialise(data), Trainer.parse(label)
    if trainer.method == "fetch_sgd":
        return from_sparse(*received)
    if trainer.method == "count_sketch":
        table, draw = received
        columns = len(table) // settings.rows
        sketch = CountSketch(DIMENSION, settings.rows, columns, SEED, int(draw), placement=settings.placement)
        scale = 1 / (1 + (DIMENSION - 1) / len(table)) if trainer.error_feedback else 1
        return rate * (scale * sketch.lift(table.view(settings.rows, columns)))
    return rate * (received[0] if len(received) == 1 else from_sparse(*received))


@every_method
@every_setting
def test_a_receiver_computes_the_same_change_from_the_download_alone(label, settings):
    method = build(label, settings)
    for step, rate in enumerate((1.0, 0.5, 0.3)):
        total = sum(method.encode(random_vector(seed=10 * step + client), step) for client in range(3)) / 3
        change = method.change(total, step, rate)
        data = serialise(method.download(total, change))
        assert torch.equal(rebuilt_change(label, settings, data, rate), change)


@pytest.mark.parametrize("label", ["top_r-x10", "top_r_ef-x2.5"])
@pytest.mark.parametrize("zeros", [0, 1000, 1195])
def test_the_server_gets_the_payload_of_top_r_from_the_upload_alone(label, zeros):
    method, update = build(label), random_vector()
    update[:zeros] = 0
    payload = method.encode(update, 0)
    assert torch.equal(from_sparse(*deserialise(serialise(method.upload(payload)))), payload)


def test_the_mean_of_top_r_is_sent_whole_where_that_is_shorter():
    """8 bytes a nonzero entry and 9 for one more array, or 4 bytes an entry: 598 of 1200 are the most that save."""
    method = LocalTopR(DIMENSION, 60)
    for nonzero, arrays in ((0, 2), (1, 2), (598, 2), (599, 1), (1200, 1)):
        total = torch.zeros(DIMENSION)
        total[DIMENSION - nonzero :] = random_vector(nonzero, 3)
        sent = method.download(total, total)
        assert len(sent) == arrays
        assert len(serialise(sent)) == size_in_bytes(method.download_parts(total, total))
        assert len(serialise(sent)) == min(1 + 18 + 8 * nonzero, 1 + 9 + 4 * DIMENSION)


def test_a_sparse_message_is_filled_up_with_zeros_at_other_places():
    values, indices = sparse_message(torch.tensor([0.0, 3.0, 0.0, -1.0]), 3)
    assert (values.tolist(), indices.tolist()) == ([3, -1, 0], [1, 3, 0])
    assert (values.dtype, indices.dtype) == (torch.float32, torch.int32)
    values, indices = sparse_message(torch.tensor([0.0, 3.0, 0.0, -1.0]))
    assert (values.tolist(), indices.tolist()) == ([3, -1], [1, 3])


# FetchSGD, by hand


def tiny_fetch(**options):
    """Coordinates 0 and 1 share column 0 with signs 1 and -1; 2 and 3 have a column each and sign 1."""
    for seed in range(20_000):
        method = FetchSGD(4, 1, 3, seed=seed, **{"top": 1} | options)
        buckets, signs = method.sketch.buckets_and_signs(0)
        if buckets.tolist() == [0, 0, 1, 2] and signs.tolist() == [1, -1, 1, 1]:
            return method
    raise AssertionError("no such hashes")


def tables(method):
    return method.state()["momentum"][0].tolist(), method.state()["error"][0].tolist()


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
