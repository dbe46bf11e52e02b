"""One training, of the same batches from the same weights, as a plain PyTorch program and as this package has it."""

import importlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset, Sampler

from hessketch.curvature.losses import cross_entropy
from hessketch.data.catalog import describe
from hessketch.data.examples import Examples
from hessketch.data.prepared import normalise
from hessketch.data.torchvision_import import import_torchvision
from hessketch.networks.registry import build_network
from hessketch.training.captured import step_of
from hessketch.training.memory_format import channels_last_pays
from hessketch.training.settings import TrainingSettings
from hessketch.training.sgd import epoch_batches, train_epoch
from hessketch.training.steps import PlainStep, sgd_of

_DATASET = describe("fashion_mnist")
_PADDING = 2  # 28x28 to 32x32
_PRINT_EVERY = 10


@dataclass(frozen=True)
class Task:
    """A network to be trained on random images in the shape of Fashion-MNIST, whole batches alone."""

    network: str
    width: float
    batches: int  # of an epoch
    batch: int = 128
    device: str = "cpu"
    rate: float = 0.01
    seed: int = 0

    @property
    def label(self) -> str:
        return f"{self.network}-batch-w{self.width:g}"

    @property
    def examples(self) -> int:
        return self.batches * self.batch

    @property
    def settings(self) -> TrainingSettings:
        return TrainingSettings(learning_rate=self.rate, epochs=10**6, batch_size=self.batch)

    def model(self) -> nn.Module:
        model = build_network(self.network, input_shape=(1, 32, 32), classes=10, width=self.width, seed=self.seed)
        return model.to(self.device)

    def raw(self) -> tuple[Tensor, Tensor]:
        """Images (n, 28, 28) uint8 and labels (n,), as torchvision keeps them."""
        generator = torch.Generator().manual_seed(self.seed)
        images = torch.randint(256, (self.examples, 28, 28), generator=generator, dtype=torch.uint8)
        return images, torch.randint(10, (self.examples,), generator=generator)

    def order(self, epoch: int) -> list[Tensor]:
        return epoch_batches(self.examples, self.batch, self.seed, epoch)


class Pictures(Dataset):
    """Images one by one, as torchvision's Fashion-MNIST gives them out."""

    def __init__(self, images: Tensor, labels: Tensor, transform):
        self._images, self._labels, self._transform = images, labels, transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self._transform(Image.fromarray(self._images[index].numpy())), int(self._labels[index])


class _Order(Sampler):
    """The batches of an epoch: those of the package, so that both train on the same."""

    def __init__(self, task: Task):
        self._task, self.epoch = task, -1

    def __len__(self) -> int:
        return self._task.batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter([indices.tolist() for indices in self._task.order(self.epoch)])


@contextmanager
def torch_defaults() -> Iterator[None]:
    """What a program computes with that sets nothing: TF32 in convolutions on a GPU, any algorithms."""
    deterministic, tf32 = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        torch.backends.cudnn.allow_tf32 = tf32


class PlainLoop:
    """torchvision's transforms, a DataLoader with worker processes that stay, and the loop of PyTorch's tutorials."""

    def __init__(self, task: Task, workers: int):
        import_torchvision()
        transforms = importlib.import_module("torchvision.transforms")
        normal = transforms.Normalize(_DATASET.mean, _DATASET.std)
        transform = transforms.Compose([transforms.Pad(_PADDING), transforms.ToTensor(), normal])
        self._device, self._model = torch.device(task.device), task.model()
        self._order = _Order(task)
        self._loader = DataLoader(
            Pictures(*task.raw(), transform),
            batch_sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self._device.type == "cuda",
        )
        self._criterion, settings = nn.CrossEntropyLoss(), task.settings
        self._optimizer = torch.optim.SGD(
            self._model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )

    def epoch(self) -> float:
        """Trains for one epoch; its mean loss."""
        with torch_defaults():
            self._order.epoch += 1
            self._model.train()
            total = 0
            for number, (images, labels) in enumerate(self._loader):
                images = images.to(self._device, non_blocking=True)
                labels = labels.to(self._device, non_blocking=True)
                self._optimizer.zero_grad()
                loss = self._criterion(self._model(images), labels)
                loss.backward()
                self._optimizer.step()
                total += loss.detach()
                if number % _PRINT_EVERY == 0:
                    loss.item()  # what a progress bar shows
            return float(total) / len(self._loader)


@dataclass(frozen=True)
class Way:
    """How this package is to take its steps; None is its own choice."""

    precision: str = "float32"
    channels_last: bool | None = None
    captured: bool | None = None


class OurTraining:
    """The epochs of `hessketch.training.sgd.train`, with its checks, in one of its ways."""

    def __init__(self, task: Task, way: Way):
        self._task, self._epochs, self._model = task, itertools.count(), task.model()
        channels_last = way.channels_last
        if channels_last is None:
            channels_last = channels_last_pays(self._model, way.precision)
        if channels_last:
            self._model.to(memory_format=torch.channels_last)
        images, labels = task.raw()
        inputs = normalise(pad(images[:, None], [_PADDING] * 4), _DATASET)
        self._examples = Examples(inputs, labels, 10).to(task.device)
        optimizer = sgd_of(self._model, task.settings, torch.device(task.device))
        take = PlainStep if way.captured is False else step_of
        self._step = take(self._model, cross_entropy, optimizer, self._examples, way.precision)

    @property
    def captured(self) -> bool:
        return self._step.captured

    def epoch(self) -> float:
        """Trains for one epoch; its mean loss."""
        task = self._task
        row = train_epoch(self._model, self._step, self._examples, task.settings, task.seed, next(self._epochs))
        return row["train_loss"]
