"""Networks and data so small that a federation of them can be followed by hand, in float64 unless said otherwise."""

import torch
from torch import nn

from hessketch.curvature.losses import cross_entropy
from hessketch.data.examples import Examples
from hessketch.federated.clients import local_updates
from hessketch.federated.methods.count_sketch import SketchedAveraging
from hessketch.federated.methods.fetch_sgd import FetchSGD
from hessketch.federated.methods.top_r import LocalTopR
from hessketch.federated.methods.uncompressed import Uncompressed
from hessketch.federated.network import FlatNetwork
from hessketch.federated.settings import FederatedSettings
from hessketch.federated.simulation import Simulation

NETWORKS = ("mlp", "cnn", "group", "batch", "batch_of_vectors")
SIZES = (3, 8, 5, 2, 6)  # examples of each client


COUNT = sum(SIZES)


def examples(count=COUNT, seed=0, dtype=torch.float64) -> Examples:
    """Images (1, 4, 4) of three classes that differ in their mean."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    inputs = torch.randn(count, 1, 4, 4, generator=generator, dtype=torch.float64)
    inputs[:, 0, 0] += targets[:, None]
    return Examples(inputs.to(dtype), targets, 3)


def network(kind="mlp", dtype=torch.float64, seed=1) -> nn.Module:
    """A fresh network with the same weights each time."""
    norm = {"group": nn.GroupNorm(2, 4), "batch": nn.BatchNorm2d(4)}.get(kind, nn.Identity())
    if kind == "mlp":
        layers = [nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)]
    elif kind == "batch_of_vectors":
        layers = [nn.Flatten(), nn.Linear(16, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)]
    else:
        layers = [nn.Conv2d(1, 4, 3, padding=1), norm, nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    model = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
    return model.to(dtype)


def parts(sizes=SIZES) -> list[torch.Tensor]:
    """Example indices of clients of these sizes, mixed."""
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(2))
    return list(order.split(list(sizes)))


def settings(**changes) -> FederatedSettings:
    return FederatedSettings(**{"learning_rate": 0.2, "clients": len(SIZES), "rounds": 10, "local_steps": 3, **changes})


def dimension(kind="mlp") -> int:
    return sum(parameter.numel() for parameter in network(kind).parameters())


def method(name: str, p: int, seed=7, **options):
    """A method by its name with _ef for error feedback, about a third of the numbers sent."""
    named, _, ef = name.partition("_ef")
    ef = name.endswith("_ef")
    named = name.removesuffix("_ef")
    if named == "uncompressed":
        return Uncompressed(p)
    if named == "top_r":
        return LocalTopR(p, options.get("count", p // 3), error_feedback=ef)
    if named == "fetch_sgd":
        return FetchSGD(p, 3, p // 9, 5, seed, error_feedback=ef, **options)
    columns = options.pop("columns", p // 6)
    return SketchedAveraging(p, options.pop("rows", 2), columns, seed, error_feedback=ef, **options)


def simulation(of, kind="mlp", dtype=torch.float64, sizes=SIZES, data=None, group=None, loss=cross_entropy, **changes):
    """A federation by a method or by a method's name."""
    of = method(of, dimension(kind)) if isinstance(of, str) else of
    data = examples(sum(sizes), dtype=dtype) if data is None else data
    chosen = settings(**{"clients": len(sizes), **changes})
    return Simulation(network(kind, dtype), loss, data, parts(sizes), of, chosen, 3, group=group)


def updates_of_round(sim: Simulation) -> dict[int, torch.Tensor]:
    """By hand, the update of each client that takes part in the round to come."""
    found = {}
    # A network of its own: the simulation's is in training mode only while it works.
    own = FlatNetwork(sim.model)
    own.model.train()
    for chunk in local_updates(
        own, sim._loss, sim.examples, sim._parts, sim.participants(), sim.theta, sim.buffers, sim.settings, sim.seed,
        sim.step,
    ):  # fmt: skip
        found |= dict(zip(chunk.clients, chunk.updates, strict=True))
    return found


def by_sgd(model: nn.Module, data: Examples, batches, rate: float, decay=0.0, loss=cross_entropy) -> nn.Module:
    """The module after steps of torch.optim.SGD on the batches (lists of indices)."""
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, weight_decay=decay)
    model.train()
    for indices in batches:
        optimiser.zero_grad()
        loss(model(data.inputs[indices]), data.targets[indices]).mean().backward()
        optimiser.step()
    return model


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


def assert_close(found, expected, tolerance=1e-12):
    """Within the tolerance of the largest entry."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))
