"""The two ways to a spectrum: the paper's algorithms as published, and one reorthogonalised run for all."""

from collections.abc import Callable
from dataclasses import replace

import torch

from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum
from hessketch.linalg.krylov import RunStore
from hessketch.linalg.paper_spectrum import PaperSettings, paper_spectrum
from hessketch.linalg.spectrum import Spectrum
from hessketch.linalg.vectors import Operator, ProgressCallback

METHODS = {"fast": FastSettings, "paper": PaperSettings}
Settings = FastSettings | PaperSettings


def method_of(settings: Settings) -> str:
    """'fast' or 'paper'."""
    return next(name for name, kind in METHODS.items() if isinstance(settings, kind))


def without_pairs(settings: Settings) -> Settings:
    """The settings with no eigenpairs taken out."""
    return replace(settings, top=0) if isinstance(settings, FastSettings) else replace(settings, deflation_rank=0)


def find_spectrum(
    operator: Operator,
    settings: Settings,
    generator: torch.Generator,
    progress: ProgressCallback | None = None,
    *,
    memory: int | None = None,
    stores: Callable[[str], RunStore] | None = None,
) -> Spectrum:
    """The spectrum by the method that the settings belong to; `memory` and `stores` serve `fast_spectrum`."""
    if isinstance(settings, FastSettings):
        return fast_spectrum(operator, settings, generator, progress, memory=memory, stores=stores)
    return paper_spectrum(operator, settings, generator, progress)
