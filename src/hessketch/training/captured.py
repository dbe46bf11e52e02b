"""Steps of SGD as CUDA graphs: a whole step, gather and update included, is launched at once.

A step of ResNet18 is some 500 kernels of microseconds, which the processor launches more slowly than a GPU takes them.
"""

from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from hessketch.curvature.halving import BatchLimit, release_memory
from hessketch.curvature.losses import Loss
from hessketch.data.examples import Examples
from hessketch.progress import note
from hessketch.training.memory_format import of_known_modules
from hessketch.training.steps import PlainStep

_WARM_UPS = 3  # torch's documentation: libraries choose algorithms and allocate workspaces before the capture


class Graphs(Protocol):
    """What records the launches of a function, to be repeated on the same memory."""

    def warm_up(self, function: Callable[[], Any]) -> None: ...

    def record(self, function: Callable[[], Any]) -> Callable[[], Any]: ...


class CudaGraphs:
    """CUDA graphs that share one pool of memory: no two replay at once, and nobody keeps what a replay computed."""

    def __init__(self, device: torch.device):
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], Any]) -> None:
        """Calls it a few times on the stream that will be captured."""
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UPS):
                    function()
        finally:  # after a failure too: what was launched until then changes weights
            torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """A call that repeats what `function` launches and returns its results, which the next call overwrites."""
        graph = torch.cuda.CUDAGraph()
        # A capture that fails may leave its stream as the current one; the outer context takes that back.
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, self._pool, self._stream):
            results = function()

        def replay() -> Any:
            graph.replay()
            return results

        return replay


class _Undivided(BatchLimit):
    """Of a step that is captured as it is: one that does not fit is not cut meanwhile but launched plainly."""

    def halve(self, size: int, failure: BaseException) -> NoReturn:
        raise failure


class CapturedStep(PlainStep):
    """`PlainStep` as graphs, one for each size of mini-batch, recorded when that size first comes.

    Warming up leaves weights, running statistics and momentum as they were: a captured training takes the steps of a
    plain one. Where a step cannot be captured the log says so, once, and steps are launched one by one.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        examples: Examples,
        precision: str,
        graphs: Graphs,
    ):
        super().__init__(model, loss, optimizer, examples, precision)
        self._graphs, self.captured = graphs, True
        self._recorded: dict[int | None, tuple[Tensor | None, Callable[[], Any]]] = {}

    def __call__(self, indices: Tensor | None) -> tuple[Tensor, Tensor]:
        size = None if indices is None else len(indices)
        if self.captured and size not in self._recorded:
            reason = None
            try:
                self._recorded[size] = self._record(indices)
            except RuntimeError as error:  # also out of memory: graphs keep theirs
                reason = (str(error).splitlines() or [type(error).__name__])[0]
            if reason is not None:  # only now does nothing hold the memory of the step that failed
                self._launch_one_by_one(reason)
        if not self.captured:
            return super().__call__(indices)
        chosen, replay = self._recorded[size]
        if chosen is not None and indices is not None:
            chosen.copy_(indices)
        value, hits = replay()
        return value.clone(), hits.clone()

    def _record(self, indices: Tensor | None) -> tuple[Tensor | None, Callable[[], Any]]:
        chosen = None if indices is None else indices.clone()  # the graph reads its indices from this memory
        state = self._state()
        before = [tensor.clone() for tensor in state]
        device, limit = self._examples.inputs.device, _Undivided()

        def step() -> tuple[Tensor, Tensor]:
            return self._take(chosen, limit)

        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type=device.type):
                self._graphs.warm_up(step)
        finally:
            with torch.no_grad():
                for tensor, value in zip(state, before, strict=True):
                    tensor.copy_(value)
            # Gradients of the graph are allocated in its own memory only where none are left.
            self._optimizer.zero_grad(set_to_none=True)
        return chosen, self._graphs.record(step)

    def _state(self) -> list[Tensor]:
        """Every tensor that a step changes; momentum begins at 0, which makes the first step that of none."""
        momenta = []
        for group in self._optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                momentum = self._optimizer.state[parameter].get("momentum_buffer")
                if momentum is None:
                    momentum = torch.zeros_like(parameter, requires_grad=False)
                    self._optimizer.state[parameter]["momentum_buffer"] = momentum
                momenta.append(momentum)
        return [*self._model.parameters(), *self._model.buffers(), *momenta]

    def _launch_one_by_one(self, reason: str) -> None:
        self.captured = False
        self._recorded.clear()
        for group in self._optimizer.param_groups:
            group["lr"], group["fused"] = float(group["lr"]), None
        release_memory()
        note(f"steps cannot be captured as CUDA graphs ({reason}); they are launched one by one")


def step_of(
    model: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    precision: str = "float32",
) -> PlainStep:
    """The step for the device of the examples: captured on a GPU, else plain.

    A graph repeats kernels, not Python: what a user's network decides in Python at each step (hooks, stochastic depth)
    would be as in the first one. So only networks of the package and of torch's own modules are captured.
    """
    device = examples.inputs.device
    if device.type != "cuda" or not of_known_modules(model):
        return PlainStep(model, loss, optimizer, examples, precision)
    return CapturedStep(model, loss, optimizer, examples, precision, CudaGraphs(device))
