r"""Random measurement matrices Omega (p, m) that follow from a seed, given block by block and never stored whole.

Entries have mean 0 and E[Omega Omega^T] = m I for every kind:

- `gaussian`: independent standard normal numbers
- `trigonometric`: a subsampled randomised cosine transform (Woolfe et al. 2008, Halko et al. 2011 section 4.6): m
  distinct columns of the orthogonal DCT of length n >= p times sqrt(n), cut to p rows, each row with a random sign. The
  cosine of a sum of two angles makes a column from two tables of sqrt(p) numbers; the adjoint is one FFT a vector
- `count_sketch`: sqrt(m) times the transpose of a Count-Sketch of one row: one entry a coordinate

One column of p = 500,000 in float32 takes 3.8 ms (gaussian), 0.6 ms (trigonometric), 0.9 ms (count_sketch) on one core;
the products of a vector with 400 of them 2.7 ms (trigonometric) and 0.8 ms (count_sketch), but 75 ms or more with
gaussian ones, which are drawn again for each few vectors. All three were equally accurate on eleven spectra.
"""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hessketch.errors import InputError, nearest
from hessketch.linalg.count_sketch import CountSketch
from hessketch.linalg.hashing import random_signs, random_words
from hessketch.linalg.sketch_sizes import MEASUREMENTS
from hessketch.linalg.vectors import require_at_least
from hessketch.seeds import derive_seed

# Columns of a Gaussian matrix that its adjoint holds at a time.
_COLUMNS_TOGETHER = 16
# Lengths with only these prime factors are fast on every FFT.
_FFT_FACTORS = (2, 3, 5)


class Measurements(Protocol):
    """Omega of shape (p, m)."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def columns(self, first: int, last: int) -> Tensor:
        """The columns first ... last - 1, (p, last - first)."""
        ...

    def adjoint(self, block: Tensor) -> Tensor:
        """Omega^T block: (p, k) to (m, k)."""
        ...


def measurements(
    kind: str, dimension: int, count: int, seed: int, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Measurements:
    """Omega (dimension, count) of a kind; the same seed gives the same columns on every device, to rounding.

    Raises InputError for an unknown kind, sizes below 1, or more measurements than dimensions.
    """
    require_at_least(1, dimension=dimension, count=count)
    if kind not in MEASUREMENTS:
        raise InputError(
            f"measurements {kind!r} are unknown; allowed: {', '.join(MEASUREMENTS)}{nearest(kind, MEASUREMENTS)}"
        )
    if count > dimension:
        raise InputError(f"{count} measurements of {dimension} dimensions; allowed: at most as many as dimensions")
    kinds: dict[str, Callable[[int, int, int, torch.dtype, torch.device], Measurements]] = {
        "gaussian": _Gaussian,
        "trigonometric": _Trigonometric,
        "count_sketch": _Counted,
    }
    return kinds[kind](dimension, count, seed, dtype, torch.device(device))


class _Map:
    def __init__(self, dimension: int, count: int, seed: int, dtype: torch.dtype, device: torch.device):
        self.shape, self._seed = (dimension, count), seed
        self._dtype, self._device = dtype, device

    def _check(self, block: Tensor) -> None:
        if block.ndim != 2 or block.shape[0] != self.shape[0]:
            raise InputError(f"a block of shape {tuple(block.shape)} given; allowed: ({self.shape[0]}, k)")


class _Gaussian(_Map):
    """Each column has its own seed, and is drawn on the CPU in float32."""

    def columns(self, first: int, last: int) -> Tensor:
        return torch.stack([self._column(j) for j in range(first, last)]).to(self._device, self._dtype).T

    def _column(self, j: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, str(j), "measurement"))
        return torch.randn(self.shape[0], generator=generator, dtype=torch.float32)

    def adjoint(self, block: Tensor) -> Tensor:
        self._check(block)
        m = self.shape[1]
        firsts = range(0, m, _COLUMNS_TOGETHER)
        return torch.cat([self.columns(a, min(a + _COLUMNS_TOGETHER, m)).to(block.dtype).T @ block for a in firsts])


class _Trigonometric(_Map):
    def __init__(self, dimension: int, count: int, seed: int, dtype: torch.dtype, device: torch.device):
        super().__init__(dimension, count, seed, dtype, device)
        self._length = _fast_length(dimension)
        order = np.argsort(random_words(self._length, seed, 0), kind="stable")
        self._frequencies = torch.from_numpy(order[:count].copy()).to(device)
        self._signs = torch.from_numpy(random_signs(random_words(dimension, seed, 1))).to(device, dtype)
        self._scales = torch.full((count,), math.sqrt(2), dtype=torch.float64, device=device)
        self._scales[self._frequencies == 0] = 1.0

    def columns(self, first: int, last: int) -> Tensor:
        p, chosen = self.shape[0], slice(first, last)
        run = math.isqrt(p - 1) + 1  # i = high * run + low
        index = torch.arange(run, device=self._device)
        high = self._angles(2 * run * index, chosen)
        low = self._angles(2 * index + 1, chosen)
        scale = self._scales[chosen, None]
        cosines = [(scale * high.cos()).to(self._dtype)[:, :, None], low.cos().to(self._dtype)[:, None, :]]
        sines = [(scale * high.sin()).to(self._dtype)[:, :, None], low.sin().to(self._dtype)[:, None, :]]
        columns = (cosines[0] * cosines[1]).addcmul_(*sines, value=-1)
        return (columns.view(-1, run * run)[:, :p] * self._signs).T

    def _angles(self, multiples: Tensor, chosen: slice) -> Tensor:
        """pi f k / (2 n) (columns, multiples) float64, reduced to one turn in whole numbers."""
        turns = self._frequencies[chosen, None] * multiples % (4 * self._length)
        return turns.double() * (math.pi / (2 * self._length))

    def adjoint(self, block: Tensor) -> Tensor:
        """The DCT by a real FFT of as many numbers, even ones first, then odd ones backwards (Makhoul 1980)."""
        self._check(block)
        n, f = self._length, self._frequencies
        signed = block.T * self._signs.to(block.dtype)
        even, odd = signed[:, ::2], signed[:, 1::2]
        ordered = block.new_zeros(block.shape[1], n)
        ordered[:, : even.shape[1]] = even
        ordered[:, n - odd.shape[1] :] = odd.flip(1)
        spectrum = torch.fft.rfft(ordered)
        mirrored = f > n // 2
        found = spectrum[:, torch.where(mirrored, n - f, f)]
        angles = f.double() * (math.pi / (2 * n))
        sines = torch.where(mirrored, -angles.sin(), angles.sin())
        products: Tensor = found.real * angles.cos().to(block.dtype) + found.imag * sines.to(block.dtype)
        return (products * self._scales.to(block.dtype)).T


def _fast_length(least: int) -> int:
    """The smallest length >= `least` that only 2, 3 and 5 divide."""
    length = least
    while True:
        rest = length
        for factor in _FFT_FACTORS:
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


class _Counted(_Map):
    def __init__(self, dimension: int, count: int, seed: int, dtype: torch.dtype, device: torch.device):
        super().__init__(dimension, count, seed, dtype, device)
        self._sketch = CountSketch(dimension, 1, count, seed, device=device)
        self._scale = math.sqrt(count)

    def columns(self, first: int, last: int) -> Tensor:
        buckets, signs = self._sketch.buckets_and_signs(0)
        rows = ((buckets >= first) & (buckets < last)).nonzero()[:, 0]
        columns = torch.zeros(last - first, self.shape[0], dtype=self._dtype, device=self._device)
        columns[buckets[rows] - first, rows] = self._scale * signs[rows].to(self._dtype)
        return columns.T

    def adjoint(self, block: Tensor) -> Tensor:
        self._check(block)
        return self._scale * torch.stack([self._sketch.apply(column)[0] for column in block.T.contiguous()], dim=1)
