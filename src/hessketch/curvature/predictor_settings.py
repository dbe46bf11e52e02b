"""How spectra of predictor Hessians are computed. Imports no torch: commands read their flags from here."""

from dataclasses import dataclass

from hessketch.described import described, require_allowed

ESTIMATORS = ("paper", "fast")


@dataclass(frozen=True)
class PredictorSettings:
    """How the spectra of predictor Hessians are computed; those of estimator `paper` default to the authors' code."""

    estimators: tuple[str, ...] = described(ESTIMATORS, "paper, fast, or both")
    lanczos_steps: int = described(100, "Lanczos steps of each start vector, estimator paper")
    start_vectors: int = described(10, "start vectors of estimator paper")
    fast_steps: int = described(48, "least Lanczos steps of each start vector, estimator fast")
    fast_start_vectors: int = described(2, "start vectors of estimator fast")
    top: int = described(10, "eigenpairs of largest magnitude that must converge, estimator fast")
    grid_points: int = described(1024, "points of a density")
    tf32: bool = described(False, "allow TF32 on a GPU: faster, three digits")

    def __post_init__(self) -> None:
        """Raises InputError for an unknown estimator and counts that no estimate could use."""
        known = 0 < len(self.estimators) == len(set(self.estimators) & set(ESTIMATORS))
        counts = {"lanczos_steps": 1, "start_vectors": 1, "fast_steps": 2, "fast_start_vectors": 1, "top": 1}
        rules = {"estimators": (known, f"one or more of {', '.join(ESTIMATORS)}")}
        rules |= {
            name: (getattr(self, name) >= least, f"a whole number of at least {least}")
            for name, least in counts.items()
        }
        rules["grid_points"] = (
            self.grid_points >= max(16, self.fast_steps),
            "a whole number of at least 16 and fast_steps",
        )
        require_allowed(self, rules)
