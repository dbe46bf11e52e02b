"""Mini-batch SGD with momentum on data that live on the device as tensors."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hessketch.curvature.losses import Loss, loss_function, mean_loss_and_accuracy
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.layers import has_batch_norm
from hessketch.schedules import is_due
from hessketch.seeds import derive_seed
from hessketch.training.captured import step_of
from hessketch.training.memory_format import laid_out
from hessketch.training.resume import Saving
from hessketch.training.settings import TrainingSettings
from hessketch.training.steps import PlainStep, sgd_of

_EVALUATION_BATCH = 1000
_EVALUATIONS = 20


@dataclass(frozen=True)
class TrainingResult:
    """What a training ended with; the model itself holds the final (or last finite) weights."""

    history: list[dict]  # one row an epoch: running train loss and accuracy, test at 20 epochs
    status: str  # "finished" or "diverged"
    diverged_at: str | None  # "epoch 3, step 17", or "epoch 3, test loss"
    resumed_from_epoch: int  # 0 when trained in one go
    memory_format: str  # of the weights meanwhile: "channels_last" or "contiguous"
    captured_steps: bool  # whether steps were CUDA graphs


def epoch_batches(
    count: int, batch_size: int, seed: int, epoch: int, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Index batches of one epoch, a fresh permutation that depends on (seed, epoch) alone.

    A last batch of a single example would leave batch norm without a variance: it joins the batch before it.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, f"epoch {epoch}", "batch order"))
    # Moved as a whole: a GPU would be waited for at each batch.
    batches = list(torch.randperm(count, generator=generator).to(device).split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def train_epoch(
    model: nn.Module, step: PlainStep, examples: Examples, settings: TrainingSettings, seed: int, epoch: int
) -> dict:
    """One pass, epochs from 0, and its row of the history. Raises NotFiniteError naming the first step with a NaN."""
    start = time.perf_counter()
    step.set_rate(settings.rate_at(epoch))
    model.train()
    batches = epoch_batches(len(examples), settings.batch_size, seed, epoch, examples.inputs.device)
    losses, hits = zip(*map(step, batches), strict=True)
    means = torch.stack(losses).double().cpu()  # one synchronisation an epoch, not one a step
    bad = (~torch.isfinite(means)).nonzero()
    if len(bad):
        raise NotFiniteError(f"epoch {epoch + 1}, step {int(bad[0]) + 1}")
    if not all_finite(model):
        raise NotFiniteError(f"epoch {epoch + 1}, step {len(batches)}")
    sizes = torch.tensor([len(indices) for indices in batches], dtype=torch.float64)
    return {
        "epoch": epoch + 1,
        "learning_rate": settings.rate_at(epoch),
        "train_loss": float((means * sizes).sum() / sizes.sum()),
        "train_accuracy": float(torch.stack(hits).sum()) / len(examples),
        "test_loss": None,
        "test_accuracy": None,
        "seconds": time.perf_counter() - start,
    }


def _tested(model: nn.Module, loss: Loss, examples: Examples, epoch: int) -> dict:
    """Loss and accuracy on the test examples. Raises NotFiniteError naming the epoch where that loss is not finite."""
    value, accuracy = mean_loss_and_accuracy(model, loss, examples.batches(_EVALUATION_BATCH))
    if not math.isfinite(value):
        raise NotFiniteError(f"epoch {epoch + 1}, test loss")
    return {"test_loss": value, "test_accuracy": accuracy}


def all_finite(model: nn.Module) -> bool:
    """Whether all parameters and buffers are finite; the device is waited for once."""
    # NaN and infinity pass into the extremes, which a CPU finds faster than it looks at each number with isfinite.
    extremes = [end.double() for tensor in model.state_dict().values() for end in torch.aminmax(tensor)]
    return bool(torch.isfinite(torch.stack(extremes)).all())


def train(
    model: nn.Module,
    loss: str,
    train_examples: Examples,
    test_examples: Examples,
    settings: TrainingSettings,
    seed: int,
    *,
    identity: dict | None = None,
    resume_file: Path | None = None,
    save_every_seconds: float = 30.0,
    checkpoint: Callable[[int, nn.Module], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingResult:
    """Trains `model` in place (Papyan 2018, section 3.1): SGD with momentum, rate divided at 1/3 and 2/3.

    `seed` fixes the order of the mini-batches. With `resume_file`, the state is kept there at most every
    `save_every_seconds` and a killed training of the same settings, data and `identity` (what else must be the same,
    such as the version of the code) continues from it; the caller deletes it when done.
    `checkpoint(epoch, model)` is called after every epoch (from 1). A loss or weight that is not finite stops the
    training with status "diverged", and the model gets back its weights of the last finite epoch. A mini-batch that
    does not fit into memory is cut into micro-batches, with batch norm an InputError (`micro_batches`).

    Meanwhile the network is in the memory format that is fastest (`laid_out`), and on a GPU steps are CUDA graphs.
    """
    if len(train_examples) < 2:
        raise InputError(f"{len(train_examples)} training examples given; at least 2 are needed")
    if settings.batch_size == 1 and has_batch_norm(model):
        raise InputError("batch_size: 1 given; allowed with batch norm: at least 2 (one example has no variance)")
    loss_of, device = loss_function(loss), train_examples.inputs.device
    same = {**asdict(settings), "loss": loss, "seed": seed, "examples": len(train_examples), **(identity or {})}
    diverged_at = None
    with laid_out(model, settings.precision) as memory_format:
        optimizer = sgd_of(model, settings, device)
        step = step_of(model, loss_of, optimizer, train_examples, settings.precision)
        saving = Saving(resume_file, save_every_seconds, model, optimizer, same)
        history = saving.resume()
        resumed_from = len(history)
        for epoch in range(resumed_from, settings.epochs):
            last_finite = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            try:
                row = train_epoch(model, step, train_examples, settings, seed, epoch)
                model.eval()
                if is_due(epoch, settings.epochs, _EVALUATIONS):
                    row |= _tested(model, loss_of, test_examples, epoch)
            except NotFiniteError as error:
                model.load_state_dict(last_finite)
                diverged_at = str(error)
                break
            history.append(row)
            if checkpoint is not None:
                checkpoint(epoch + 1, model)
            if progress is not None:
                progress(epoch + 1, settings.epochs)
            saving.save_if_due(history)
        model.eval()
    status = "finished" if diverged_at is None else "diverged"
    return TrainingResult(history, status, diverged_at, resumed_from, memory_format, step.captured)
