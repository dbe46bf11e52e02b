"""A federation in one process, or spread over several: rounds of local work, one sum, one change of the weights."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from hessketch.curvature.losses import Loss
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.federated.clients import LocalUpdates, local_updates
from hessketch.federated.error_feedback import ErrorMemory
from hessketch.federated.methods.interface import Method
from hessketch.federated.network import FlatNetwork
from hessketch.federated.settings import FederatedSettings
from hessketch.federated.sums import RoundSums
from hessketch.federated.traffic import Traffic
from hessketch.linalg.vectors import dot, norm
from hessketch.seeds import derive_seed

DIVERGED = 100.0
"""A training loss above so many times that of the first round ends a run as diverged."""

_ALL = 0  # the one holder of the error memory where the clients' memories are only ever needed as their mean


class Simulation:
    """Clients, server and weights of one federated training; `round()` moves it on.

    Each participant starts from the weights theta, takes its local steps and is due to send theta less where it ended.
    What arrives is weighed by the participants' numbers of examples and added; everyone subtracts
    `method.change(sum)`. Buffers of batch norm (running means and variances) are averaged with the same weights, never
    sketched, and counted among the bytes.

    A linear method encodes the mean of the updates once, which equals the mean of the encoded ones; with error
    feedback too, for the mean of the clients' memories is all that is needed when all take part. Others, and linear
    ones with error feedback and partial participation, encode client by client.

    Over the processes of `group` each simulates its share of the clients; one all-reduce a round adds payloads, buffers
    and losses. Clients' random numbers depend on (seed, round, client) alone: any number of processes gives the same
    weights up to rounding. The columns update_norm and error_norm are then NaN, for no process knows them, and so are
    lift_error and its theory where the mean is encoded.

    model, loss: a network on the device (it is changed) and a loss with one value an example; examples: on the device;
    parts: example indices of each client; seed: of participants and mini-batches.

    Raises InputError for a wrong number of parts, a client without examples, batch norm over a single example, and
    dropout.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        examples: Examples,
        parts: Sequence[Tensor],
        method: Method,
        settings: FederatedSettings,
        seed: int,
        *,
        group: distributed.ProcessGroup | None = None,
    ):
        if len(parts) != settings.clients:
            raise InputError(
                f"examples of {len(parts)} clients given, settings say {settings.clients}; give one for each"
            )
        self.settings, self.method, self.examples, self.seed = settings, method, examples, seed
        self._loss, self._group = loss, group
        device = examples.inputs.device
        self._parts = [part.to(device) for part in parts]
        if not all(self.client_examples):
            raise InputError(f"client {self.client_examples.index(0)} has no examples; allowed: at least 1 each")
        self._network = FlatNetwork(model)
        self._require_variance()
        self._require_no_dropout()
        self.theta, self.buffers = self._network.theta(), self._network.buffers()
        self.step = 0  # rounds done
        self.first_loss = math.nan
        everyone = settings.participants == settings.clients
        self._encodes_mean = method.linear and (everyone or not method.error_feedback)
        self.errors = ErrorMemory(self._network.dimension, device) if method.error_feedback else None
        self._rank = 0 if group is None else distributed.get_rank(group)
        self.processes = 1 if group is None else distributed.get_world_size(group)
        self._traffic = Traffic(settings.clients)

    def _require_variance(self) -> None:
        batch = self.settings.local_batch_size
        if self._network.has_batch_norm and (batch == 1 or min(self.client_examples) == 1):
            raise InputError(
                f"batch norm over a single example, which has no variance: local_batch_size is {batch}, the smallest "
                f"client has {min(self.client_examples)} examples; allowed: 0 or at least 2, and least_examples of at "
                "least 2; or take another norm"
            )

    def _require_no_dropout(self) -> None:
        for name, module in self._network.model.named_modules():
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
                raise InputError(
                    f"{name or 'the network'} is dropout: its random numbers would depend on how clients are computed; "
                    "allowed: networks without dropout; give it p=0"
                )

    @property
    def model(self) -> nn.Module:
        """The network with the present weights and buffers, in eval mode."""
        self._network.load(self.theta, self.buffers)
        return self._network.model.eval()

    def weights(self) -> dict[str, Tensor]:
        """A copy of the present weights and buffers, as the network's state_dict."""
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    @property
    def client_examples(self) -> list[int]:
        """Number of examples of each client."""
        return [len(part) for part in self._parts]

    def participants(self) -> list[int]:
        """Who takes part in the present round, drawn without replacement from (seed, round)."""
        everyone = self.settings.clients
        if self.settings.participants == everyone:
            return list(range(everyone))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, f"round {self.step}", "participants"))
        return torch.randperm(everyone, generator=generator)[: self.settings.participants].sort().values.tolist()

    def round(self) -> dict[str, float | int]:
        """One round and its row: loss and accuracy where it started, errors, norms, bytes.

        lift_error is the sum of |due - decoded|^2 over the sum of |due|^2, lift_error_theory what theory says of it:
        over the clients where each encodes its own update (due: with its error memory), else of their mean.

        Raises NotFiniteError, and leaves weights and buffers as they were, where the loss, the sum or the weights are
        not finite or the loss is above `DIVERGED` times that of the first round.
        """
        start = time.perf_counter()
        name = f"round {self.step + 1}"
        participants = self.participants()
        sums = self._local_sums(participants)
        if self._group is not None:
            sums.add_over_processes(self._group)
        total, buffers = sums.payload(), sums.mean_buffers(self.buffers)
        loss, accuracy = float(sums.loss) / sums.examples, float(sums.hits) / sums.examples
        self._require_sound(loss, name)
        rate = self.settings.server_rate_at(self.step)
        if not torch.isfinite(total).all():
            raise NotFiniteError(f"{name}: updates")
        change = self.method.change(total, self.step, rate)
        row = self._row(sums, loss, accuracy, rate, total, change, participants)
        theta = self.theta - change
        if not torch.isfinite(theta).all():
            raise NotFiniteError(f"{name}: weights")
        self.theta, self.buffers = theta, buffers
        self.step += 1
        row["seconds"] = time.perf_counter() - start
        return row

    def _require_sound(self, loss: float, name: str) -> None:
        if self.step == 0:
            self.first_loss = loss
        if not math.isfinite(loss):
            raise NotFiniteError(f"{name}: training loss {loss}")
        if loss > DIVERGED * self.first_loss:
            raise NotFiniteError(f"{name}: training loss {loss:.4g}, {self.first_loss:.4g} at the start")

    def _local_sums(self, participants: list[int]) -> RoundSums:
        """The work of this process's participants, encoded and added."""
        mine = [client for client in participants if client % self.processes == self._rank]
        examples = sum(len(self._parts[client]) for client in participants)
        zero = torch.zeros_like(self.theta)
        sums = RoundSums.empty(zero, self.buffers)
        for chunk in self._updates(mine):
            weights = zero.new_tensor([len(self._parts[c]) / examples for c in chunk.clients])
            sums.add_work(chunk, weights)
            if not self._encodes_mean:
                for client, weight, update in zip(chunk.clients, weights.tolist(), chunk.updates, strict=True):
                    sums.add_payload(weight * self._encode(client, update, sums))
        if self._encodes_mean:
            sums.add_payload(self._encode(_ALL, sums.update, sums))
        elif not mine:  # more processes than participants
            sums.add_payload(self.method.encode(zero, self.step))
        return sums

    def _updates(self, clients: list[int]) -> Iterator[LocalUpdates]:
        return local_updates(
            self._network,
            self._loss,
            self.examples,
            self._parts,
            clients,
            self.theta,
            self.buffers,
            self.settings,
            self.seed,
            self.step,
        )

    def _encode(self, holder: int, update: Tensor, sums: RoundSums) -> Tensor:
        """The payload of a client (or of the mean of all), its error memory brought up to date."""
        due = update if self.errors is None else self.errors.due(holder, update)
        if not torch.isfinite(due).all():  # spoils the sum, so that all processes stop
            return torch.full_like(self.method.encode(torch.zeros_like(due), self.step), math.nan)
        payload = self.method.encode(due, self.step)
        if self.method.server_memory:
            return payload
        sent = self.method.decode(payload, self.step)
        if self.errors is not None:
            self.errors.keep(holder, due, sent)
        energy, missing = float(dot(due, due)), due - sent
        sums.due += energy
        sums.missing += float(dot(missing, missing))
        sums.expected += energy * self.method.expected_error(due)
        return payload

    def _row(
        self,
        sums: RoundSums,
        loss: float,
        accuracy: float,
        rate: float,
        total: Tensor,
        change: Tensor,
        participants: list[int],
    ) -> dict[str, float | int]:
        up, down = self._traffic.of_round(self.method, total, change, self.theta, self.buffers, participants)
        kept = self.errors.norm() if self.errors is not None else 0.0
        known = self._group is None or not self._encodes_mean  # of a mean each process knows its own part alone
        return {
            "round": self.step + 1,
            "server_rate": rate,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "test_loss": math.nan,
            "test_accuracy": math.nan,
            "update_norm": float(norm(sums.update)) if self._group is None else math.nan,
            "lift_error": sums.missing / sums.due if sums.due and known else math.nan,
            "lift_error_theory": sums.expected / sums.due if sums.due and known else math.nan,
            "error_norm": getattr(self.method, "error_norm", kept if self._group is None else math.nan),
            "upload_bytes": up,
            "download_bytes": down,
            "participants": len(participants),
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that a resumed federation needs: tensors, and numbers for a JSON record."""
        tensors = {"theta": self.theta}
        tensors |= {f"buffer.{name}": buffer for name, buffer in self.buffers.items()}
        tensors |= {f"method.{name}": tensor for name, tensor in self.method.state().items()}
        if self.errors is not None:
            tensors |= {f"error.{holder}": kept for holder, kept in self.errors.state().items()}
        return tensors, {"step": self.step, "first_loss": self.first_loss, "behind": self._traffic.behind}

    def load_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Restores what `state` gave."""

        def named(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.theta = tensors["theta"].to(self.theta)
        self.buffers = {name: buffer.to(self.theta.device) for name, buffer in named("buffer.").items()}
        self.method.load_state(named("method."))
        if self.errors is not None:
            self.errors.load_state(named("error."))
        self.step, self.first_loss, self._traffic.behind = numbers["step"], numbers["first_loss"], numbers["behind"]
