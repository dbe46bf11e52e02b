"""Settings of what is measured of Hessian eigenspaces and magnitude masks."""

import math
from dataclasses import dataclass

from hessketch.described import described, require_allowed
from hessketch.errors import InputError, nearest
from hessketch.linalg.sketch_sizes import MEASUREMENTS, default_measurements
from hessketch.linalg.sketch_sizes import METHODS as SKETCH_METHODS

METHODS = ("exact", "sketched", "lanczos")
SPLITS = ("train", "test")
# Ratios of mask size to parameters, and those whose stability is looked at (Fernandez et al. 2025).
RATIOS = (0.005, 0.01, 0.05)
STABILITY_RATIOS = (0.005, 0.01, 0.05)


@dataclass(frozen=True)
class EigenspaceSettings:
    """What is measured at each checkpoint, and how; the sketch as in `linalg.sketched_eigh.SketchSettings`."""

    pairs: float = described(100.0, "eigenpairs of largest magnitude; below 1 a share of the parameters")
    measurements: int = described(0, "random measurements of the sketch; 0: twice the pairs and 10 more")
    sketch_method: str = described("fast", "sketched eigendecomposition: ours, or as published", SKETCH_METHODS)
    kind: str = described("trigonometric", "random measurements", MEASUREMENTS)
    passes: int = described(4, "steps that the measurements are taken in, each from the products before (fast only)")
    probes: int = described(30, "Gaussian vectors of the a-posteriori error estimate")
    exact_up_to: int = described(8000, "parameters up to which the Hessian is formed and decomposed whole")
    batch_size: int = described(500, "examples in one pass of a curvature product")
    methods: tuple[str, ...] = described(("exact", "sketched"), "ways to the eigenspaces")
    splits: tuple[str, ...] = described(SPLITS, "examples whose mean loss is differentiated")
    ratios: tuple[float, ...] = described(RATIOS, "mask sizes over parameters")
    stability_ratios: tuple[float, ...] = described(STABILITY_RATIOS, "the same for the stability along a training")

    def __post_init__(self) -> None:
        """Raises InputError for values that no measurement could use."""
        whole = self.pairs >= 1 and float(self.pairs).is_integer()
        ratio = "one or more different numbers above 0 and below 1"
        rules = {
            "pairs": (whole or 0 < self.pairs < 1, "a whole number of at least 1, or a share between 0 and 1"),
            "measurements": (self.measurements >= 0, "a whole number of at least 1, or 0 for twice the pairs and 10"),
            "passes": (self.passes >= 1, "a whole number of at least 1"),
            "probes": (self.probes >= 0, "a whole number of at least 0"),
            "exact_up_to": (self.exact_up_to >= 0, "a whole number of at least 0"),
            "batch_size": (self.batch_size >= 1, "a whole number of at least 1"),
            "ratios": (_are_ratios(self.ratios), ratio),
            "stability_ratios": (_are_ratios(self.stability_ratios), ratio),
        }
        require_allowed(self, rules)
        for name, given, allowed in (("methods", self.methods, METHODS), ("splits", self.splits, SPLITS)):
            unknown = [word for word in given if word not in allowed]
            if unknown or not given or len(set(given)) < len(given):
                hint = nearest(unknown[0], allowed) if unknown else ""
                raise InputError(f"{name}: {list(given)} given; allowed: {', '.join(allowed)}, each once{hint}")

    def pairs_of(self, parameters: int) -> int:
        """How many eigenpairs of a network with so many parameters are looked at."""
        return int(self.pairs) if self.pairs >= 1 else ratio_size(self.pairs, parameters)

    def methods_of(self, parameters: int) -> list[str]:
        """Those that a network with so many parameters has, the exact one first: others are held against it."""
        too_large = {"exact"} if parameters > self.exact_up_to else set()
        return sorted(set(self.methods) - too_large, key=lambda name: (name != "exact", name))

    def compared_ratios(self, parameters: int) -> list[float]:
        """Those of the stability whose eigenspaces are compared: of no more vectors than `pairs_of`, ascending."""
        pairs = self.pairs_of(parameters)
        return sorted(ratio for ratio in self.stability_ratios if ratio_size(ratio, parameters) <= pairs)

    def measurements_of(self, pairs: int) -> int:
        """Products of the sketch of so many pairs, those of its error estimate aside."""
        return self.measurements or default_measurements(pairs)


def ratio_size(ratio: float, parameters: int) -> int:
    """The whole number of parameters nearest to a ratio of them, at least 1."""
    return max(1, round(ratio * parameters))


def _are_ratios(ratios: tuple[float, ...]) -> bool:
    return bool(ratios) and len(set(ratios)) == len(ratios) and all(0 < r < 1 and math.isfinite(r) for r in ratios)
