"""Steps of SGD: memory format, mixed precision, and capture, with a recorder of operators in place of CUDA graphs."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hessketch import progress
from hessketch.curvature.losses import cross_entropy
from hessketch.data.examples import Examples
from hessketch.networks.registry import build_network
from hessketch.training import captured, sgd
from hessketch.training.captured import CapturedStep, CudaGraphs, step_of
from hessketch.training.memory_format import channels_last_pays, laid_out
from hessketch.training.settings import TrainingSettings
from hessketch.training.steps import PlainStep, sgd_of

SETTINGS = TrainingSettings(learning_rate=0.1, epochs=3, batch_size=8)
CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def _tensors(values) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


class _Recorder(TorchDispatchMode):
    """Lists the operators that run, as a capture does: with their memory, and without leaving a trace in it."""

    def __init__(self):
        super().__init__()
        self.calls, self._before = [], {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):  # schemas do not say that batch norm changes its statistics
            self._before.setdefault(tensor.data_ptr(), (tensor, tensor.clone()))
        results = operator(*args, **kwargs)
        self.calls.append((operator, args, kwargs, results))
        return results

    def undo(self) -> None:
        for tensor, before in self._before.values():
            tensor.detach().copy_(before)

    def replay(self) -> None:
        for operator, args, kwargs, results in self.calls:
            with torch.no_grad():
                again = operator(*args, **kwargs)
                for old, new in zip(_tensors(results), _tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.detach().copy_(new)


class RecordedGraphs:
    """Stands for CudaGraphs: a replay repeats operators on the memory that they were recorded with, and no Python."""

    def warm_up(self, function: Callable) -> None:
        for _ in range(3):
            function()

    def record(self, function: Callable) -> Callable:
        recorder = _Recorder()
        with recorder:
            results = function()
        recorder.undo()

        def replay():
            recorder.replay()
            return results

        return replay


class BrokenGraphs(RecordedGraphs):
    def record(self, function: Callable) -> Callable:
        super().record(function)
        raise RuntimeError("no graphs here\nmore about it")


def _examples(count: int = 28, classes: int = 3) -> Examples:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, classes, (count,), generator=generator)
    return Examples(torch.randn(count, 2, 6, 6, generator=generator) + targets[:, None, None, None], targets, classes)


def _network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(64, 3)
    return nn.Sequential(*layers)


def _trained(monkeypatch, graphs, settings=SETTINGS, **options) -> tuple[dict, sgd.TrainingResult]:
    def step(*arguments) -> PlainStep:
        return PlainStep(*arguments) if graphs is None else CapturedStep(*arguments, graphs)

    def optimizer(model, settings, device) -> torch.optim.SGD:
        if graphs is None:
            return sgd_of(model, settings, device)
        rate = torch.tensor(settings.learning_rate)
        return torch.optim.SGD(
            model.parameters(), rate, settings.momentum, weight_decay=settings.weight_decay, fused=True
        )

    monkeypatch.setattr(sgd, "step_of", step)
    monkeypatch.setattr(sgd, "sgd_of", optimizer)
    model = _network()
    result = sgd.train(model, "cross_entropy", _examples(), _examples(), settings, 1, **options)
    return model.state_dict(), result


def _assert_alike(weights: dict, others: dict) -> None:
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-4, atol=1e-6)


def test_a_captured_training_takes_the_steps_of_a_plain_one_smaller_batches_and_changed_rates_included(monkeypatch):
    plain, expected = _trained(monkeypatch, None)
    weights, result = _trained(monkeypatch, RecordedGraphs())
    _assert_alike(weights, plain)
    for row, other in zip(result.history, expected.history, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert row["train_accuracy"] == other["train_accuracy"]
    assert result.captured_steps and not expected.captured_steps
    assert {row["learning_rate"] for row in result.history} == {0.1, 0.1 * 0.1, 0.1 * 0.1**2}


def test_a_captured_training_that_was_killed_goes_on_with_its_momentum(monkeypatch, tmp_path):
    plain, _ = _trained(monkeypatch, None)

    def kill(epoch, model):
        if epoch == 3:
            raise KeyboardInterrupt

    options = {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        _trained(monkeypatch, RecordedGraphs(), checkpoint=kill, **options)
    weights, result = _trained(monkeypatch, RecordedGraphs(), **options)
    assert result.resumed_from_epoch == 2
    _assert_alike(weights, plain)


def test_steps_that_cannot_be_captured_are_launched_one_by_one_and_the_log_says_so_once(monkeypatch):
    plain, _ = _trained(monkeypatch, None)
    said = len(progress.notes())
    weights, result = _trained(monkeypatch, BrokenGraphs())
    _assert_alike(weights, plain)
    assert not result.captured_steps
    (line,) = progress.notes(said)
    assert "cannot be captured as CUDA graphs (no graphs here)" in line


def test_a_diverging_captured_training_names_the_step_and_keeps_finite_weights(monkeypatch):
    weights, result = _trained(monkeypatch, RecordedGraphs(), replace(SETTINGS, learning_rate=1e30))
    assert result.status == "diverged" and result.diverged_at.startswith("epoch 1, step ")
    _assert_alike(weights, _network().state_dict())


def test_a_step_that_waits_for_the_device_cannot_be_recorded():
    with pytest.raises(RuntimeError, match="not permitted"):
        RecordedGraphs().record(lambda: torch.ones(()).item())


def test_steps_are_captured_on_a_gpu_alone(monkeypatch):
    monkeypatch.setattr(captured, "CudaGraphs", lambda device: RecordedGraphs())
    model, optimizer = _network(), None
    assert type(step_of(model, cross_entropy, optimizer, _examples())) is PlainStep
    on_gpu = SimpleNamespace(inputs=SimpleNamespace(device=torch.device("cuda", 0)))
    assert type(step_of(model, cross_entropy, optimizer, on_gpu)) is CapturedStep


def test_mixed_precision_changes_the_passes_alone():
    examples, seen = _examples(), []
    steps = []
    for precision in ("float32", "bfloat16"):
        model = _network().train()
        model[0].register_forward_hook(lambda module, inputs, outputs: seen.append(outputs.dtype))
        optimizer = sgd_of(model, SETTINGS, CPU)
        value, _ = PlainStep(model, cross_entropy, optimizer, examples, precision)(torch.arange(8))
        steps.append((value, model.state_dict()))
        tensors = [*model.parameters(), *(state["momentum_buffer"] for state in optimizer.state.values()), value]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert seen == [torch.float32, torch.bfloat16]
    (exact, weights), (mixed, others) = steps
    assert exact != mixed and float(mixed) == pytest.approx(float(exact), rel=0.02)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("name", "norm", "expected"),
    [("resnet18", "batch", True), ("vgg11", "none", True), ("vgg11", "group", False), ("mlp", "batch", False)],
)
def test_channels_last_is_taken_where_it_is_faster_and_left_at_the_end(name, norm, expected):
    model = build_network(name, input_shape=(3, 32, 32), classes=10, width=1 / 16, norm=norm)
    assert channels_last_pays(model) is expected
    with laid_out(model) as memory_format:
        assert memory_format == ("channels_last" if expected else "contiguous")
        assert all(weights.is_contiguous() for weights in model.parameters()) is not expected
    assert all(weights.is_contiguous() for weights in model.parameters())


def test_a_users_network_keeps_its_memory_format():
    class Own(nn.Sequential):
        def forward(self, images):
            return self[1](self[0](images).view(len(images), -1))  # of channels-last activations there is no such view

    model = Own(nn.Conv2d(2, 4, 3), nn.Linear(64, 3))
    result = sgd.train(model, "cross_entropy", _examples(), _examples(), SETTINGS, 0)
    assert result.status == "finished" and result.memory_format == "contiguous"


def test_a_killed_training_of_convolutions_resumes_bit_for_bit(monkeypatch, tmp_path):
    whole, result = _trained(monkeypatch, None)
    assert result.memory_format == "channels_last"

    def kill(epoch, model):
        if epoch == 2:
            raise KeyboardInterrupt

    options = {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        _trained(monkeypatch, None, checkpoint=kill, **options)
    resumed, result = _trained(monkeypatch, None, **options)
    assert result.resumed_from_epoch == 1
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


@needs_gpu
def test_cuda_graphs_train_as_plain_steps_do():
    examples = _examples().to("cuda")
    trained = []
    for kind, more in ((PlainStep, ()), (CapturedStep, (CudaGraphs(examples.inputs.device),))):
        model = _network().cuda().train()
        step = kind(model, cross_entropy, sgd_of(model, SETTINGS, examples.inputs.device), examples, "float32", *more)
        for rate in (0.1, 0.01):
            step.set_rate(rate)
            for size in (8, 8, 5):
                step(torch.arange(size, device="cuda"))
        assert step.captured is (kind is CapturedStep)
        trained.append(model.state_dict())
    _assert_alike(*trained)
