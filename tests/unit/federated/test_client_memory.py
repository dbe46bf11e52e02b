"""Federated clients where memory runs out: fewer at once, then fewer of a client's examples, the same updates."""

import pytest
import torch
from small_federations import SIZES, assert_close, examples, network, parts, settings

from hessketch.curvature.losses import cross_entropy
from hessketch.errors import InputError
from hessketch.federated import clients
from hessketch.federated.clients import local_updates
from hessketch.federated.network import FlatNetwork
from hessketch.progress import notes_said

pytestmark = pytest.mark.usefixtures("quick_collections")


def updates(of_module, **changes):
    """Client to its update and its buffers."""
    found = {}
    for chunk in local_updates(
        of_module, cross_entropy, examples(), parts(SIZES), [0, 1, 2, 3, 4], of_module.theta(), of_module.buffers(),
        settings(**changes), 3, 0,
    ):  # fmt: skip
        for i, client in enumerate(chunk.clients):
            found[client] = [chunk.updates[i], chunk.losses[i], *(buffer[i] for buffer in chunk.buffers.values())]
    return found


def room_for(monkeypatch, clients_at_once, examples_at_once=10**6):
    """A device on which more clients side by side, or more examples of one, do not fit."""
    vectorise, call = clients.vmap, FlatNetwork.__call__

    def narrow_vmap(function, **options):
        def vectorised(theta, *others):
            if len(theta) > clients_at_once:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return vectorise(function, **options)(theta, *others)

        return vectorised

    def narrow_call(self, theta, buffers, inputs):
        if len(inputs) > examples_at_once:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, theta, buffers, inputs)

    monkeypatch.setattr(clients, "vmap", narrow_vmap)
    monkeypatch.setattr(FlatNetwork, "__call__", narrow_call)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for client, tensors in expected.items():
        for tensor, other in zip(found[client], tensors, strict=True):
            assert_close(tensor, other, 1e-12)


@pytest.mark.parametrize(("kind", "local_batch_size"), [("mlp", 0), ("mlp", 3), ("batch", 3)])
def test_clients_in_halved_chunks_send_the_same(kind, local_batch_size, monkeypatch):
    options = {"local_batch_size": local_batch_size, "local_steps": 2}
    expected, said, of_module = updates(FlatNetwork(network(kind)), **options), [], FlatNetwork(network(kind))
    room_for(monkeypatch, 1)
    with notes_said(said.append):
        for _ in range(2):  # the second round asks for no more than fitted in the first
            assert_same(updates(of_module, **options), expected)
            assert of_module.clients_limit.most == 1
    assert said and all(
        text.startswith("out of memory with chunks of ") and "clients: halved to" in text for text in said
    )


def test_a_client_alone_adds_up_gradients_of_halves(monkeypatch):
    expected, of_module = updates(FlatNetwork(network("mlp")), local_steps=2), FlatNetwork(network("mlp"))
    room_for(monkeypatch, 0, examples_at_once=2)
    assert_same(updates(of_module, local_steps=2), expected)
    assert of_module.examples_limit.most <= 2


def test_a_client_with_batch_norm_is_not_cut_and_the_error_names_the_key(monkeypatch):
    of_module = FlatNetwork(network("batch"))
    room_for(monkeypatch, 1, examples_at_once=2)
    with pytest.raises(
        InputError, match=r"examples of a client's step; batch norm takes .*federated\.local_batch_size"
    ):
        updates(of_module)


def test_an_error_of_another_kind_passes(monkeypatch):
    def broken(function, **options):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(clients, "vmap", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        updates(FlatNetwork(network("mlp")))
