"""Messages come back bit for bit, are as long as was said, and are refused when damaged."""

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.federated.messages import DTYPES, Part, deserialise, parts_of, serialise, size_in_bytes


@st.composite
def tensors(draw):
    """Tensors of any kind and shape whose bits are arbitrary: NaN, infinities, -0.0 and subnormals too."""
    dtype = getattr(torch, draw(st.sampled_from(DTYPES)))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    size = torch.Size(shape).numel() * dtype.itemsize
    bits = draw(st.binary(min_size=size, max_size=size))
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(bits), dtype=dtype).reshape(shape)


messages = st.lists(tensors(), max_size=5)


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else torch.empty(0)


@given(messages)
def test_tensors_come_back_bit_for_bit(sent):
    received = deserialise(serialise(sent))
    assert [tensor.dtype for tensor in received] == [tensor.dtype for tensor in sent]
    assert [tensor.shape for tensor in received] == [(tensor.numel(),) for tensor in sent]
    assert all(torch.equal(bits(there), bits(here)) for there, here in zip(received, sent, strict=True))


@given(messages)
def test_the_size_is_known_without_the_bytes(sent):
    assert size_in_bytes(parts_of(sent)) == len(serialise(sent))


@given(messages)
def test_what_was_received_is_sent_on_as_the_same_bytes(sent):
    data = serialise(sent)
    assert serialise(deserialise(data)) == data


def test_nan_and_minus_zero_are_kept():
    payload = torch.tensor([0x7FC00001, -0x00400001, -0x80000000], dtype=torch.int32).view(torch.float32)
    (received,) = deserialise(serialise([payload]))
    assert torch.equal(received.view(torch.int32), payload.view(torch.int32))
    assert received.isnan().tolist() == [True, True, False]
    assert received.signbit().tolist()[2]


def test_the_format_is_the_documented_one():
    values, indices = torch.tensor([[1.0, -2.0]]), torch.tensor([7], dtype=torch.int64)
    expected = struct.pack("<BBQBQ", 2, 0, 2, 2, 1) + struct.pack("<ffq", 1.0, -2.0, 7)
    assert serialise([values, indices]) == expected
    assert serialise([]) == b"\0"
    assert deserialise(b"\0") == []


def test_a_float_costs_four_bytes_and_an_array_nine():
    assert size_in_bytes([Part("float32", 1000)]) == 1 + 9 + 4000
    assert size_in_bytes([Part("float32", 10), Part("int32", 10)]) == 1 + 2 * 9 + 80
    assert size_in_bytes(Part("uint8", 3) for _ in range(2)) == 1 + 2 * 9 + 6
    assert size_in_bytes([]) == 1


def test_views_and_tensors_of_a_graph_are_sent_by_value():
    matrix = torch.arange(6.0).reshape(2, 3).requires_grad_()
    received = deserialise(serialise([matrix.T, matrix[:, 1], (2 * matrix)[0]]))
    assert [tensor.tolist() for tensor in received] == [[0, 3, 1, 4, 2, 5], [1, 4], [0, 2, 4]]


def test_what_was_received_can_be_written_to():
    data = serialise([torch.ones(3)])
    deserialise(data)[0].add_(1)
    assert deserialise(data)[0].tolist() == [1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_message_from_a_gpu_comes_back_on_the_cpu():
    sent = torch.randn(5, device="cuda")
    (received,) = deserialise(serialise([sent]))
    assert received.device.type == "cpu"
    assert torch.equal(received, sent.cpu())


def test_255_arrays_fit_and_256_are_refused():
    assert len(deserialise(serialise([torch.ones(1)] * 255))) == 255
    with pytest.raises(InputError, match="a message of 256 arrays; allowed: at most 255"):
        serialise([torch.ones(1)] * 256)
    with pytest.raises(InputError, match="a message of 256 arrays; allowed: at most 255"):
        size_in_bytes([Part("float32", 1)] * 256)


def test_kinds_that_cannot_be_sent_are_refused():
    with pytest.raises(InputError, match=r"bfloat16 numbers cannot be sent; allowed: float32, .*name: float16$"):
        serialise([torch.ones(2, dtype=torch.bfloat16)])
    with pytest.raises(InputError, match=r"float23 numbers cannot be sent; .*; nearest valid name: float32$"):
        Part("float23", 1)
    with pytest.raises(InputError, match="an array of -1 numbers; allowed: 0 or more"):
        Part("float32", -1)


@settings(deadline=None)
@given(messages, st.data())
def test_cut_messages_are_refused(sent, data):
    whole = serialise(sent)
    kept = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InputError, match="is cut"):
        deserialise(whole[:kept])


@given(messages, st.binary(min_size=1, max_size=20))
def test_messages_with_something_behind_them_are_refused(sent, more):
    with pytest.raises(InputError, match=r"is cut or damaged: [0-9]+ bytes, [0-9]+ expected; send it again"):
        deserialise(serialise(sent) + more)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(data):
    try:
        received = deserialise(data)
    except InputError:
        return
    assert serialise(received) == data


def test_damaged_headers_are_refused():
    whole = serialise([torch.ones(3)])
    with pytest.raises(InputError, match="the message is damaged: 200 is no kind of numbers; send it again"):
        deserialise(whole[:1] + bytes([200]) + whole[2:])
    with pytest.raises(InputError, match=r"22 bytes, 1046 expected"):
        deserialise(whole[:3] + b"\x01" + whole[4:])
    with pytest.raises(InputError, match="is cut or damaged"):
        deserialise(whole[:2] + b"\xff" * 8 + whole[10:])
    with pytest.raises(InputError, match="the message is cut: 22 bytes, its headers alone have 2296"):
        deserialise(b"\xff" + whole[1:])
    with pytest.raises(InputError, match="the message is cut: it has no bytes"):
        deserialise(b"")
