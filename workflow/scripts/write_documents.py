"""Writes what the documents have from other sources: docs/configuration.md, the rule graph and the claims in short.

Run in the project's own folder: `make docs`. With --check nothing is written, and status 1 says that something is old.
The claims are those of the demo as it was run last and of the recorded profile; where either is missing, their block in
README.md stays as it is.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from hessketch.claims.papers import PAPERS
from hessketch.config_document import configuration_page
from hessketch.documents import claims_in_short, rule_graph, with_block
from hessketch.errors import InputError
from hessketch.records import read_table, write_atomically

PROFILES = ("demo", "fashion_mnist_cpu", "fashion_mnist", "fashion_mnist_reference", "paper")
CLAIMS = {
    "demo": Path("results/demo/claims.parquet"),
    "fashion_mnist_cpu": Path("results/reference/fashion_mnist_cpu/claims.parquet"),
}


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


def claims() -> str:
    """The claims in short; empty where those of a profile are missing."""
    if not all(path.is_file() for path in CLAIMS.values()):
        return ""
    titles = {key: f"{paper.authors.partition(',')[0]} {paper.year}" for key, paper in PAPERS.items()}
    return claims_in_short({profile: read_table(path) for profile, path in CLAIMS.items()}, titles)


def documents() -> dict[Path, str]:
    """Each document that has made parts, as it should be now."""
    architecture, readme = Path("docs/architecture.md"), Path("README.md")
    made = {
        Path("docs/configuration.md"): configuration(),
        architecture: with_block(architecture.read_text(), "rule graph", rule_graph(dag())),
    }
    short = claims()
    return {**made, readme: with_block(readme.read_text(), "claims", short)} if short else made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a document is old")
    arguments = parser.parse_args()
    try:
        old = [(path, text) for path, text in documents().items() if not path.exists() or path.read_text() != text]
    except InputError as error:
        sys.exit(f"error: {error}")
    for path, text in old:
        if not arguments.check:
            write_atomically(path, lambda place, text=text: place.write_text(text))
        print(f"{path}: {'is old; run: make docs' if arguments.check else 'written'}")
    sys.exit(1 if arguments.check and old else 0)


if __name__ == "__main__":
    main()
