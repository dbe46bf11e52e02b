"""The claims of one study as a short table, for a notebook."""

from pathlib import Path

import pandas as pd

from hessketch.claims.catalog import all_claims
from hessketch.claims.verdicts import judged
from hessketch.extensions import load_named
from hessketch.study_folders import folder_of_study


def verdicts_of_study(study: str, folder: str | Path | None = None) -> pd.DataFrame:
    """One row a claim: place, statement, quantity, criterion, value, standard error, verdict and its reason.

    Claims of one's own are among them where HESSKETCH_EXTENSIONS names their files. `folder` and errors as of
    `hessketch.study_folders.folder_of_study`.
    """
    load_named()
    results = folder_of_study(study, folder).parent
    claims = judged(results, [claim for claim in all_claims() if claim.study == study], {study}).claims
    claims["criterion"] = claims["sense"] + " " + claims["threshold"].map("{:g}".format) + " " + claims["unit"]
    columns = ["place", "statement", "quantity", "criterion", "value", "standard_error", "verdict", "reason"]
    return claims[columns]
