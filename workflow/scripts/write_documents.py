"""Writes what the documents have from other sources: docs/configuration.md, the rule graph and the claims in short.

Run in the project's own folder: `make docs`. With --check nothing is written, and status 1 says that something is old
or was never made. The claims are those of the recorded profile and, in README.md, of the demo as it was run last; where
a profile's are missing, what was made of them before stays as it is.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from hessketch.claims.papers import PAPERS
from hessketch.config_document import configuration_page
from hessketch.documents import claims_in_short, rule_graph, verdicts_of_study, with_block
from hessketch.errors import InputError
from hessketch.records import read_table, write_atomically

PROFILES = ("demo", "fashion_mnist_cpu", "fashion_mnist", "fashion_mnist_reference", "paper")
RECORDED = "fashion_mnist_cpu"
CLAIMS = {
    "demo": Path("results/demo/claims.parquet"),
    RECORDED: Path(f"results/reference/{RECORDED}/claims.parquet"),
}
MAKE_CLAIMS = "snakemake --cores all claims reference_claims && make docs"
README = Path("README.md")


def configuration() -> str:
    """docs/configuration.md as the schema and the profiles have it now."""
    schema, *configs = (yaml.safe_load(Path(f"config/{name}.yaml").read_text()) for name in ("schema", *PROFILES))
    return configuration_page(schema, dict(zip(PROFILES, configs, strict=True)))


def dag() -> str:
    """What Snakemake prints of the demo's jobs. Raises InputError with its own words where it fails."""
    words = [sys.executable, "-m", "snakemake", "--dag", "mermaid-js", "--forceall"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"snakemake --dag failed: {done.stderr.strip()}")
    return done.stdout


def claims() -> dict[Path, str]:
    """Each page that has a block of claims, with that block as it should be now; without claims, as it is."""
    found = {profile: read_table(path) for profile, path in CLAIMS.items() if path.is_file()}
    pages = {page: page.read_text() for page in [README, *sorted(Path("docs/studies").glob("*.md"))]}
    if RECORDED in found:
        for page in set(pages) - {README}:
            pages[page] = with_block(pages[page], "claims", verdicts_of_study(found[RECORDED], page.stem))
    if len(found) == len(CLAIMS):
        titles = {key: f"{paper.authors.partition(',')[0]} {paper.year}" for key, paper in PAPERS.items()}
        pages[README] = with_block(pages[README], "claims", claims_in_short(found, titles))
    return pages


def documents() -> dict[Path, str]:
    """Each document that has made parts, as it should be now."""
    architecture = Path("docs/architecture.md")
    return {
        Path("docs/configuration.md"): configuration(),
        architecture: with_block(architecture.read_text(), "rule graph", rule_graph(dag())),
        **claims(),
    }


def without_claims(pages: dict[Path, str]) -> list[Path]:
    """Those of the pages whose block of claims is empty."""
    return [page for page, text in pages.items() if "<!-- claims -->\n<!-- /claims -->" in text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a document is old")
    arguments = parser.parse_args()
    try:
        made = documents()
    except InputError as error:
        sys.exit(f"error: {error}")
    old = [page for page, text in made.items() if not page.exists() or page.read_text() != text]
    for page in old:
        if not arguments.check:
            write_atomically(page, lambda place, text=made[page]: place.write_text(text))
        print(f"{page}: {'is old; run: make docs' if arguments.check else 'written'}")
    empty = without_claims(made)
    for page in empty:
        print(f"{page}: its claims were never made; run: {MAKE_CLAIMS}")
    sys.exit(1 if arguments.check and (old or empty) else 0)


if __name__ == "__main__":
    main()
