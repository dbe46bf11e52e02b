"""The clients' part of a round: each starts from the same weights and takes its own steps on its own examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from hessketch.curvature.losses import Loss, correct
from hessketch.data.examples import Examples
from hessketch.federated.network import Buffers, FlatNetwork
from hessketch.federated.settings import FederatedSettings
from hessketch.seeds import derive_seed

# Clients side by side share the overhead of every operation. Measured on a CPU core (time of a client's step alone over
# that in chunks of 25): MLP of 17 thousand parameters 4.3 at 10 images a client, 2.7 at 50; of 70 thousand 2.2 and 1.7;
# a CNN of 11 thousand 1.5 and 1.0; ResNet18 of 45 thousand with group norm 1.9 and 1.2. Beyond 32 nothing is gained,
# and what is kept for them (weights, gradients, activations) leaves the cache, then the memory: hence two other limits.
_MOST = 32
_PARAMETERS_AT_ONCE = {"cpu": 2**22, "cuda": 2**28}
_EXAMPLES_AT_ONCE = {"cpu": 2000, "cuda": 16000}


@dataclass(frozen=True)
class LocalUpdates:
    """What a chunk of k clients did in a round."""

    clients: list[int]
    updates: Tensor  # (k, p): weights at the start less weights at the end
    buffers: Buffers  # (k, ...) each
    losses: Tensor  # (k,) mean loss over the client's examples at the weights that the round starts from
    hits: Tensor  # (k,) right predictions among them
    counts: list[int]  # examples in the first local step, over which losses and hits are taken


class _Round(NamedTuple):
    """What all clients of a round share: where they start, on what, and how they train."""

    network: FlatNetwork
    loss: Loss
    examples: Examples
    start: Tensor  # (p,) weights
    buffers: Buffers
    settings: FederatedSettings


def clients_at_once(dimension: int, examples: int, device: torch.device) -> int:
    """How many clients of so many examples are computed side by side (vectorised); 1 is one after the other."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    return max(1, min(_MOST, _PARAMETERS_AT_ONCE[kind] // dimension, _EXAMPLES_AT_ONCE[kind] // max(1, examples)))


def local_updates(
    network: FlatNetwork,
    loss: Loss,
    examples: Examples,
    parts: Sequence[Tensor],
    clients: Sequence[int],
    theta: Tensor,
    buffers: Buffers,
    settings: FederatedSettings,
    seed: int,
    step: int,
) -> Iterator[LocalUpdates]:
    """The updates of `clients` in a round (from 0), a chunk at a time, smallest clients first.

    `parts` are the example indices of all clients, on the examples' device. `seed` fixes the mini-batches, which depend
    on (seed, round, client) alone, so that neither chunks nor processes change them. Clients are computed in vectorised
    chunks or one by one, by `settings.chunk` or `clients_at_once`: the same numbers up to rounding. A chunk that does
    not fit into memory is halved, then a client's examples, which batch norm does not allow (InputError). In a chunk
    shorter clients are padded with examples of weight 0; batch norm would see those: its chunks hold clients of one
    size.
    """
    network.model.train()
    shared = _Round(network, loss, examples, theta, buffers, settings)
    for chunk in _chunks(network, parts, clients, settings, theta.device):
        batches = _batches([parts[c] for c in chunk], chunk, settings, seed, step)
        work = partial(_of_part, shared, chunk, batches)
        yield from (update for _, update in network.clients_limit.parts(work, len(chunk), len(chunk)))


def _of_part(shared: _Round, clients: list[int], batches: list[list[Tensor]], part: slice) -> LocalUpdates:
    """A chunk of clients, or the part of it that fits into memory."""
    run = _one_by_one if len(clients[part]) == 1 else _side_by_side
    return run(shared, clients[part], batches[part])


def _chunks(
    network: FlatNetwork,
    parts: Sequence[Tensor],
    clients: Sequence[int],
    settings: FederatedSettings,
    device: torch.device,
) -> Iterator[list[int]]:
    def size(client: int) -> int:
        return min(len(parts[client]), settings.local_batch_size or len(parts[client]))

    chunk: list[int] = []
    for client in sorted(clients, key=lambda c: (size(c), c)):
        most = settings.chunk or clients_at_once(network.dimension, size(client), device)
        if not settings.local_batch_size and size(client) > settings.micro_batch:
            most = 1
        other_size = chunk and network.has_batch_norm and size(chunk[0]) != size(client)
        if chunk and (len(chunk) >= most or other_size):
            yield chunk
            chunk = []
        chunk.append(client)
    if chunk:
        yield chunk


def _batches(
    parts: list[Tensor], clients: list[int], settings: FederatedSettings, seed: int, step: int
) -> list[list[Tensor]]:
    """For each client the example indices of each of its local steps."""
    if not settings.local_batch_size:
        return [[part] * settings.local_steps for part in parts]
    return [_mini_batches(part, c, settings, seed, step) for part, c in zip(parts, clients, strict=True)]


def _mini_batches(part: Tensor, client: int, settings: FederatedSettings, seed: int, step: int) -> list[Tensor]:
    """One after the other from permutations of the client's examples, a new one when too few are left."""
    size = min(settings.local_batch_size, len(part))
    generator = torch.Generator().manual_seed(derive_seed(seed, f"round {step} client {client}", "mini-batches"))
    batches: list[Tensor] = []
    while len(batches) < settings.local_steps:
        order = torch.randperm(len(part), generator=generator).to(part.device)
        batches += [part[order[i : i + size]] for i in range(0, len(part) - size + 1, size)]
    return batches[: settings.local_steps]


def _one_by_one(shared: _Round, clients: list[int], batches: list[list[Tensor]]) -> LocalUpdates:
    """One client by plain automatic differentiation, its full batch in micro-batches whose gradients are added."""
    network, loss, examples, settings = shared.network, shared.loss, shared.examples, shared.settings
    theta, own = shared.start.clone(), {name: buffer.clone() for name, buffer in shared.buffers.items()}
    seen: list[tuple[Tensor, Tensor]] = []  # loss and right predictions of each step
    for indices in batches[0]:
        slope, value = torch.zeros_like(theta), theta.new_zeros(())
        hits = theta.new_zeros((), dtype=torch.int64)

        def of_piece(piece: slice, theta: Tensor = theta, indices: Tensor = indices) -> tuple[Tensor, Tensor, Tensor]:
            inputs, targets = examples.inputs[indices[piece]], examples.targets[indices[piece]]
            leaf = theta.detach().requires_grad_()
            outputs = network(leaf, own, inputs)
            part = loss(outputs, targets).sum() / len(indices)
            gradient = torch.autograd.grad(part, leaf)[0]
            return gradient, part.detach(), correct(outputs.detach(), targets, loss).sum()

        # Batch norm's statistics are those of the whole batch: it is not cut.
        most = len(indices) if network.has_batch_norm else settings.micro_batch
        for _, (gradient, part, right) in network.examples_limit.parts(of_piece, len(indices), most):
            slope += gradient
            value, hits = value + part, hits + right
        seen.append((value, hits))
        theta = theta - settings.learning_rate * (slope + settings.weight_decay * theta)
    losses, right_ones = seen[0]
    buffers = {name: buffer[None] for name, buffer in own.items()}
    updates = (shared.start - theta)[None]
    return LocalUpdates(clients, updates, buffers, losses[None], right_ones[None], [len(batches[0][0])])


def _side_by_side(shared: _Round, clients: list[int], batches: list[list[Tensor]]) -> LocalUpdates:
    """A chunk of clients at once: every operation of the network is done for all of them together."""
    examples, settings = shared.examples, shared.settings

    def weighted_loss(
        theta: Tensor, own: Buffers, inputs: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, tuple[Buffers, Tensor]]:
        own = {name: buffer.clone() for name, buffer in own.items()}  # batch norm may write into these
        outputs = shared.network(theta, own, inputs)
        return (shared.loss(outputs, targets) * weights).sum(), (own, correct(outputs, targets, shared.loss))

    slopes = vmap(grad_and_value(weighted_loss, has_aux=True))
    theta = shared.start.expand(len(clients), -1)
    own = {name: buffer.expand(len(clients), *buffer.shape) for name, buffer in shared.buffers.items()}
    seen: list[tuple[Tensor, Tensor]] = []  # losses and right predictions of each step
    full = not settings.local_batch_size
    for number in range(settings.local_steps):
        if number == 0 or not full:
            indices, weights = _padded([of_client[number] for of_client in batches], shared.start)
            inputs, targets = examples.inputs[indices], examples.targets[indices]
        slope, (value, (own, right)) = slopes(theta, own, inputs, targets, weights)
        seen.append((value, (right & (weights > 0)).sum(1)))
        theta = theta - settings.learning_rate * (slope + settings.weight_decay * theta)
    losses, hits = seen[0]
    counts = [len(of_client[0]) for of_client in batches]
    return LocalUpdates(clients, shared.start - theta, own, losses, hits, counts)


def _padded(parts: list[Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (k, n) of k clients, short ones filled up with their first example, and the examples' weights."""
    longest = max(map(len, parts))
    indices = torch.stack([torch.cat([part, part[:1].expand(longest - len(part))]) for part in parts])
    counts = torch.tensor([len(part) for part in parts], device=like.device)
    inside = torch.arange(longest, device=like.device) < counts[:, None]
    return indices, inside.to(like.dtype) / counts[:, None]
