"""The settings of a sketched eigendecomposition."""

from dataclasses import dataclass

from hessketch.described import described, require_allowed
from hessketch.linalg.sketch_sizes import MEASUREMENTS, METHODS, default_measurements, least_measurements


@dataclass(frozen=True)
class SketchSettings:
    """How many eigenpairs, and from what."""

    pairs: int = described(200, "eigenpairs of largest magnitude")
    measurements: int = described(0, "products in all; 0: twice the pairs and 10 more")
    method: str = described("fast", "recovery: fast, or paper (SEIGH)", METHODS)
    kind: str = described("trigonometric", "random measurement vectors", MEASUREMENTS)
    passes: int = described(4, "steps that the products are taken in, each from the products before (fast only)")
    probes: int = described(30, "further products that estimate the error; 0 takes none")
    block: int = described(16, "vectors multiplied at a time; what a kill loses at most")

    def __post_init__(self) -> None:
        """Raises InputError for values that no decomposition could use."""
        most = self.count // least_measurements(1, self.method)
        rules = {
            "pairs": (1 <= self.pairs <= most, f"1 to {most} with {self.count} measurements by method {self.method}"),
            "measurements": (self.measurements >= 0, "a whole number of at least 0"),
            "passes": (1 <= self.passes <= max(1, self.count), f"1 to {self.count}, the number of measurements"),
            "probes": (self.probes >= 0, "a whole number of at least 0"),
            "block": (self.block >= 1, "a whole number of at least 1"),
        }
        require_allowed(self, rules)

    @property
    def count(self) -> int:
        """Measurements in all."""
        return self.measurements or default_measurements(self.pairs)

    def pass_sizes(self) -> list[int]:
        """Measurements of each pass."""
        passes = 1 if self.method == "paper" else self.passes
        return [self.count // passes + (j < self.count % passes) for j in range(passes)]
