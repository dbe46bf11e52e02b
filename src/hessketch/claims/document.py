"""docs/claims.md: all claims with their criteria, from the catalog. It holds no verdict: these come from results.

Written anew by `python -m hessketch.claims.document > docs/claims.md`.
"""

from hessketch.claims.catalog import CLAIMS
from hessketch.claims.claim import Claim
from hessketch.claims.papers import PAPERS

_HEAD = """# Claims

{count} statements of the five papers, each with the criterion that decides it. The criteria were fixed before any
verdict was computed, from the papers and from what chance or a trivial network would give. Tables of the studies had
been recorded by then. Since this file is made from `src/hessketch/claims`, a criterion that is changed later shows in
its history. Verdicts are not here: they are computed from a profile's tables,

    snakemake --cores 1 claims                  # of the demo; --configfile for another profile
    python -m hessketch claims results/demo     # of any folder of results

and are *supported*, *contradicted* or *not tested at this scale*. Of each case (data set, network, and what else is
varied) the mean over seeds counts. It is certainly on a side of the threshold if it lies there by more than one
standard error over the seeds; with one seed the value alone decides, and the verdict says so. Where a criterion must
hold in every case, the claim is contradicted if any case is certainly on the wrong side (the worst such case is shown),
supported if all are certainly on the right side, and else not tested: more seeds are needed. For a mean of cases they
are averaged within each seed first, and this mean is held against the threshold. One standard error over few seeds is a
low bar: of many cases near a threshold some pass it, to either side, by chance. How many of the cases meet the
criterion and how many were not measured is said with the verdict.

How much a verdict can mean depends on how well a paper's protocol is known: each paper's *evidence* says it.

This file is written by `python -m hessketch.claims.document > docs/claims.md`.
"""


def document() -> str:
    """The whole text of docs/claims.md."""
    parts = [_HEAD.format(count=len(CLAIMS))]
    for key, paper in PAPERS.items():
        own = [claim for claim in CLAIMS if claim.paper == key]
        parts.append(f"## {paper.authors} {paper.year}: *{paper.title}*\n\n[{paper.where}]({paper.link})\n")
        parts.append(f"Evidence: {paper.evidence}\n")
        parts += [_section(claim) for claim in own]
    return "\n".join(parts)


def _section(claim: Claim) -> str:
    unit = f" {claim.unit}" if claim.unit else ""
    tables = ", ".join(f"`{table}`" for table in claim.tables)
    lines = [
        f"### {claim.name}",
        "",
        f"{claim.statement} ({claim.place})",
        "",
        f"- Criterion: {claim.quantity}: **{claim.sense} {claim.threshold:g}{unit}**, {claim.over}",
        f"- Why: {claim.why}",
        f"- The paper shows: {claim.pictured}",
        f"- From: {tables}; figure `{claim.study}/{claim.figure}`",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(document(), end="")
