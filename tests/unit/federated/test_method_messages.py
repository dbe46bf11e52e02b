"""What methods send: bytes by their own messages, and changes computed from the download alone."""

import pytest
import torch
from small_methods import DIMENSION, SEED, build, every_method, every_setting, random_vector

from hessketch.federated.messages import deserialise, parts_of, serialise, size_in_bytes
from hessketch.federated.methods.interface import sparse_message
from hessketch.federated.methods.top_r import LocalTopR
from hessketch.linalg.count_sketch import CountSketch
from hessketch.trainers import Trainer

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
