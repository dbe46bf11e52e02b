"""Say which statements of the papers hold in a folder of results, by criteria that were fixed beforehand.

Each claim is supported, contradicted, or not tested at this scale; docs/claims.md has all statements and criteria with
their reasons. The folder is a profile's results, or recorded tables of one.

examples:
  python -m hessketch claims results/demo
  python -m hessketch claims results/reference/fashion_mnist_cpu --paper papyan2018
  python -m hessketch claims results/demo --observations top_r_needs_feedback
"""

import argparse
from pathlib import Path

from hessketch.claims.papers import PAPERS
from hessketch.errors import InputError, nearest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="results of a profile")
    parser.add_argument("--paper", choices=PAPERS, help="claims of this paper alone (default: all)")
    parser.add_argument("--observations", metavar="NAME", help="what was observed for this claim, case by case")


def run(arguments: argparse.Namespace, progress) -> None:
    from hessketch.claims.catalog import all_claims
    from hessketch.claims.text import claims_text, observations_text
    from hessketch.claims.verdicts import judged

    claims = [claim for claim in all_claims() if arguments.paper in (None, claim.paper)]
    if arguments.observations is not None:
        names = [claim.name for claim in claims]
        if arguments.observations not in names:
            raise InputError(
                f"--observations {arguments.observations}: no such claim; allowed: {', '.join(names)}"
                f"{nearest(arguments.observations, names)}"
            )
        claims = [claim for claim in claims if claim.name == arguments.observations]
    found = judged(arguments.folder, claims)
    progress.close()
    print(claims_text(found.claims))
    if arguments.observations is not None:
        print(f"\n{observations_text(found.observations)}")
