"""All claims, in the order of the papers and of the pipeline's studies."""

from hessketch.claims import (
    basins,
    eigenspaces,
    full_spectrum,
    full_spectrum_bulk,
    outlier_hierarchy,
    over_parametrized,
    predictor_hessian,
    sgd_dynamics,
    sharper_sketching,
)
from hessketch.claims.claim import Claim
from hessketch.errors import InputError
from hessketch.extensions import registered

CLAIMS = (
    *full_spectrum.CLAIMS,
    *full_spectrum_bulk.CLAIMS,
    *outlier_hierarchy.CLAIMS,
    *sharper_sketching.CLAIMS,
    *predictor_hessian.CLAIMS,
    *sgd_dynamics.CLAIMS,
    *eigenspaces.CLAIMS,
    *over_parametrized.CLAIMS,
    *basins.CLAIMS,
)
STUDIES = tuple(dict.fromkeys(claim.study for claim in CLAIMS))
TABLES = tuple(sorted({table for claim in CLAIMS for table in claim.tables}))
"""`study/table` of every table that a claim reads."""


def all_claims() -> tuple[Claim, ...]:
    """CLAIMS and those that extensions have registered; raises InputError for one of these that has another's name."""
    own = registered("claim")
    for name in {claim.name for claim in CLAIMS} & set(own):
        raise InputError(f"claim {name!r} is there already; choose another name")
    return (*CLAIMS, *own.values())
