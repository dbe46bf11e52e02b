"""Say which statements of the papers hold in a folder of results, by criteria fixed before any verdict was computed.

Each claim is supported, contradicted, or not tested at this scale; docs/claims.md has all statements and criteria with
their reasons. The folder is a profile's results, or recorded tables of one.

examples:
  python -m hessketch claims results/demo
  python -m hessketch claims results/reference/fashion_mnist_cpu --paper papyan2018
  python -m hessketch claims results/demo --observations top_r_needs_feedback
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from hessketch.claims.papers import PAPERS
from hessketch.errors import InputError, nearest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="results of a profile")
    papers = f"claims of this paper alone: {', '.join(PAPERS)}, or that of a claim of one's own (default: all)"
    parser.add_argument("--paper", metavar="PAPER", help=papers)
    parser.add_argument("--observations", metavar="NAME", help="what was observed for this claim, case by case")


def run(arguments: argparse.Namespace, progress) -> None:
    from hessketch.claims.catalog import all_claims
    from hessketch.claims.text import claims_text, observations_text
    from hessketch.claims.verdicts import judged

    claims = list(all_claims())
    if arguments.paper is not None:
        _require_known("--paper", "paper", arguments.paper, dict.fromkeys(claim.paper for claim in claims))
        claims = [claim for claim in claims if claim.paper == arguments.paper]
    if arguments.observations is not None:
        _require_known("--observations", "claim", arguments.observations, [claim.name for claim in claims])
        claims = [claim for claim in claims if claim.name == arguments.observations]
    found = judged(arguments.folder, claims)
    progress.close()
    print(claims_text(found.claims))
    if arguments.observations is not None:
        print(f"\n{observations_text(found.observations)}")


def _require_known(flag: str, kind: str, name: str, names: Iterable[str]) -> None:
    allowed = list(names)
    if name not in allowed:
        raise InputError(f"{flag} {name}: no such {kind}; allowed: {', '.join(allowed)}{nearest(name, allowed)}")
