"""Operators whose spectrum is known, for the tests of this folder."""

import numpy as np
import torch
from torch import Tensor


def rotated(eigenvalues, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A dense symmetric matrix with these eigenvalues and eigenvectors in general position."""
    values = torch.as_tensor(np.array(eigenvalues), dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator(seed), dtype=torch.float64)).Q
    matrix = q @ (values[:, None] * q.T)
    return ((matrix + matrix.T) / 2).to(dtype)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Counted:
    """A tensor that counts the vectors it multiplies, and gives `bad` in place of product number `bad_from` on."""

    def __init__(self, matrix: Tensor, bad_from: int | None = None, bad: float = float("nan")):
        self.matrix, self.bad_from, self.bad = matrix, bad_from, bad
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device
        self.calls = self.products = 0

    def __matmul__(self, other: Tensor) -> Tensor:
        self.calls += 1
        self.products += 1 if other.ndim == 1 else other.shape[1]
        product = self.matrix @ other
        if self.bad_from is not None and self.calls >= self.bad_from:
            product.view(-1)[0] = self.bad
        return product


def integral(density) -> float:
    return float(np.trapezoid(density.density, density.eigenvalues))
