"""Local work of clients against torch.optim.SGD on the module, side by side against one by one."""

import pytest
import torch
from small_federations import NETWORKS, SIZES, assert_close, by_sgd, examples, flat, network, parts, settings
from torch import nn

from hessketch.curvature.losses import LOSSES, cross_entropy
from hessketch.data.examples import Examples
from hessketch.federated.clients import clients_at_once, local_updates
from hessketch.federated.network import FlatNetwork


def work(
    kind="mlp",
    clients=(0, 1, 2, 3, 4),
    loss=cross_entropy,
    seed=3,
    step=0,
    data=None,
    model=None,
    sizes=SIZES,
    **changes,
):
    """Client to its (update, buffers, loss, hits, count)."""
    of_module = FlatNetwork(model or network(kind))
    chosen = settings(weight_decay=0.05, **changes)
    results = {}
    for chunk in local_updates(
        of_module, loss, data or examples(), parts(sizes), list(clients), of_module.theta(), of_module.buffers(),
        chosen, seed, step,
    ):  # fmt: skip
        for i, client in enumerate(chunk.clients):
            buffers = {name: buffer[i] for name, buffer in chunk.buffers.items()}
            results[client] = (chunk.updates[i], buffers, chunk.losses[i], chunk.hits[i], chunk.counts[i])
    return results


def assert_same(found, expected, tolerance=1e-12):
    assert found.keys() == expected.keys()
    for client, (update, buffers, loss, hits, count) in expected.items():
        assert_close(found[client][0], update, tolerance)
        assert_close(found[client][2], loss, tolerance)
        assert (int(found[client][3]), found[client][4]) == (int(hits), count)
        for name, buffer in buffers.items():
            assert_close(found[client][1][name], buffer, tolerance)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize("kind", NETWORKS)
def test_an_update_is_k_steps_of_sgd_with_weight_decay_on_the_module_its_buffers_included(kind, chunk, loss):
    found = work(kind, loss=LOSSES[loss], chunk=chunk)
    data = examples()
    assert sorted(found) == list(range(len(SIZES)))
    for client, indices in enumerate(parts()):
        update, buffers, value, hits, count = found[client]
        start = network(kind).train()
        outputs = start(data.inputs[indices])
        assert_close(value, LOSSES[loss](outputs, data.targets[indices]).mean().detach())
        assert int(hits) == int((outputs.argmax(1) == data.targets[indices]).sum()) and count == SIZES[client]
        ended = by_sgd(network(kind), data, [indices] * 3, 0.2, 0.05, LOSSES[loss])
        assert_close(update, flat(network(kind)) - flat(ended))
        assert buffers.keys() == dict(ended.named_buffers()).keys()
        for name, buffer in ended.named_buffers():
            assert_close(buffers[name], buffer)


def test_the_module_lends_its_structure_and_stays_as_it_was():
    model = network("batch")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for chunk in (0, 1):
        work("batch", model=model, chunk=chunk)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    flat_network = FlatNetwork(model)
    theta, buffers = flat_network.theta() + 1, {name: b + 1 for name, b in flat_network.buffers().items()}
    flat_network.load(theta, buffers)
    assert torch.equal(flat_network.theta(), theta) and torch.equal(flat(model), theta)
    assert all(torch.equal(b, flat_network.buffers()[name]) for name, b in buffers.items())


@pytest.mark.parametrize("changes", [{}, {"local_batch_size": 2}, {"local_batch_size": 4}, {"local_steps": 1}])
@pytest.mark.parametrize("kind", NETWORKS)
def test_chunks_of_any_size_give_what_a_loop_gives(kind, changes):
    """Clients of 2 to 8 examples: shorter ones are padded, which must change nothing."""
    loop = work(kind, chunk=1, **changes)
    for chunk in (2, 3, 5, 0):
        assert_same(work(kind, chunk=chunk, **changes), loop)


def sizes_seen(model: nn.Module) -> list[int]:
    """Filled with the number of examples of each forward pass."""
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    return seen


@pytest.mark.parametrize("kind", ["mlp", "cnn", "group"])
def test_micro_batches_add_up_to_the_full_batch_in_a_loop_and_in_a_chunk_that_they_split(kind):
    whole = work(kind, chunk=1)
    for chunk in (0, 1):
        model = network(kind)
        seen = sizes_seen(model)
        assert_same(work(kind, model=model, chunk=chunk, micro_batch=3), whole)
        assert max(seen) <= 3


def test_batch_norm_takes_its_statistics_over_the_whole_batch_whatever_the_micro_batch():
    model = network("batch")
    seen = sizes_seen(model)
    assert_same(work("batch", model=model, chunk=1, micro_batch=3), work("batch", chunk=1))
    assert max(seen) == max(SIZES)


class _Recorder(nn.Module):
    """A linear network that keeps the numbers of the examples it saw."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(1, 3).double(), []

    def forward(self, inputs):
        self.seen.append(inputs[:, 0].int().tolist())
        return self.linear(inputs)


def batches_of(client: int, clients=None, sizes=SIZES, **options) -> list[list[int]]:
    """Example numbers of each local step of a client, in a loop over `clients` (default: it alone)."""
    count = sum(SIZES)
    data = Examples(torch.arange(count).double()[:, None], torch.arange(count) % 3, 3)
    model = _Recorder()
    work(
        clients=clients or [client],
        data=data,
        model=model,
        sizes=sizes,
        **{"chunk": 1, "local_batch_size": 3, **options},
    )
    own = set(parts(sizes)[client].tolist())
    return [batch for batch in model.seen if set(batch) <= own]


def test_mini_batches_repeat_no_example_before_a_pass_is_over():
    batches = batches_of(1, local_steps=9)  # of 8 examples two batches of 3 a pass
    assert [len(batch) for batch in batches] == [3] * 9
    for first in range(0, 8, 2):
        assert len({*batches[first], *batches[first + 1]}) == 6
    assert set().union(*map(set, batches)) == set(parts()[1].tolist())
    assert batches[:2] != batches[2:4]


def test_mini_batches_follow_from_seed_round_and_client_and_from_nothing_else():
    torch.manual_seed(1)
    alone = batches_of(1)
    torch.manual_seed(2)
    assert alone == batches_of(1, clients=[4, 1, 2, 0]) == batches_of(1)
    assert alone != batches_of(1, seed=4) and alone != batches_of(1, step=1)
    equal = (8, 8, 5, 3)
    places = [
        [parts(equal)[client].tolist().index(i) for batch in batches_of(client, sizes=equal) for i in batch]
        for client in (0, 1)
    ]
    assert places[0] != places[1]
    assert_same(work(chunk=5, local_batch_size=3, clients=[1]), {1: work(chunk=2, local_batch_size=3)[1]})


def test_a_client_with_fewer_examples_than_a_mini_batch_takes_all_of_them_each_step():
    assert [sorted(batch) for batch in batches_of(3, local_steps=4)] == [sorted(parts()[3].tolist())] * 4


def test_how_many_clients_are_computed_at_once_falls_with_their_size_and_is_at_least_one():
    cpu = torch.device("cpu")
    assert clients_at_once(1000, 10, cpu) == 32
    assert clients_at_once(10**6, 10, cpu) == 4 and clients_at_once(10**9, 10, cpu) == 1
    assert clients_at_once(1000, 500, cpu) == 4 and clients_at_once(1000, 10**6, cpu) == 1
