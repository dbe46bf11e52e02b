"""Holds the papers' claims against a profile's tables: writes the verdicts and what they were decided on."""

import argparse
from pathlib import Path

from hessketch.cli import run_job


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.claims.text import claims_text
    from hessketch.claims.verdicts import VERDICTS, judged
    from hessketch.records import write_atomically, write_record, write_table

    found = judged(arguments.results, studies=arguments.studies)
    text = claims_text(found.claims)
    counts = {verdict: int((found.claims["verdict"] == verdict).sum()) for verdict in VERDICTS}
    folder = arguments.output
    write_table(found.observations, folder / "claim_observations.parquet")
    write_table(found.claims, folder / "claims.parquet")
    write_atomically(folder / "claims.txt", lambda temporary: temporary.write_text(f"{text}\n"))
    write_record({"studies": arguments.studies, "verdicts": counts}, folder / "claims.json")
    progress.say(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--results", type=Path, required=True, help="results of a profile: STUDY/TABLE.parquet")
parser.add_argument("--studies", nargs="+", required=True, metavar="STUDY", help="studies that the profile has")
parser.add_argument("--output", type=Path, required=True, help="folder to write into")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "claims", arguments.log)
