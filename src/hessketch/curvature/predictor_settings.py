"""How spectra of predictor Hessians are computed. Imports no torch: commands read their flags from here."""

from dataclasses import dataclass
from typing import Any

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
        counts = {"lanczos_steps": 2, "start_vectors": 1, "fast_steps": 2, "fast_start_vectors": 1, "top": 1}
        allowed = f"one or more of {', '.join(ESTIMATORS)}, as a tuple, such as ('fast',)"
        rules = {"estimators": (_are_estimators(self.estimators), allowed)}
        rules |= {
            name: (_is_whole(getattr(self, name), least), f"a whole number of at least {least}")
            for name, least in counts.items()
        }
        rules["grid_points"] = (
            _is_whole(self.grid_points, max(16, self.fast_steps if _is_whole(self.fast_steps, 2) else 2)),
            "a whole number of at least 16 and fast_steps",
        )
        require_allowed(self, rules)


def _are_estimators(given: Any) -> bool:
    """Whether each is known and there once; a word is no list of words."""
    listed = isinstance(given, tuple | list) and len(given) > 0
    return listed and all(name in ESTIMATORS and given.count(name) == 1 for name in given)


def _is_whole(number: Any, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least
