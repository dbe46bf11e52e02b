"""`snakemake --lint` without the four lints that do not hold here; exits with 1 where another is left.

    python workflow/lint.py

Snakemake cannot leave out a lint by itself, so what does not apply, and why, is said in NOT_HERE.
"""

import re
import subprocess
import sys
from collections.abc import Iterator

NOT_HERE = {
    "Specify a conda environment or container for each rule": "jobs use the environment that Snakemake runs in, whose "
    "versions requirements.lock pins: `make` installs it",
    "Mixed rules and functions in same snakefile": "a study's functions stand beside the rules that call them, a file "
    "a study; what several files use is in common.smk",
    "Shell command directly uses variable": "folders of the profile, and how many processes share the work; "
    "as params, a change would rerun what comes out the same",
    "is a prefix of input or output file but hardcoded": "a study's tables lie in one folder, which all its scripts "
    "take; jobs share a file system, on SLURM too",
}


def lints(said: str) -> Iterator[tuple[str, str]]:
    """Each (file or rule, title of the lint) in the output of `snakemake --lint`."""
    place = ""
    for line in said.splitlines():
        if found := re.fullmatch(r"Lints for (.*):", line):
            place = found[1]
        elif found := re.fullmatch(r"    \* (.*?):?", line):
            yield place, found[1]


def left(said: str) -> list[str]:
    """A line for each lint that is not among NOT_HERE."""
    return [f"{place}: {title}" for place, title in lints(said) if not any(known in title for known in NOT_HERE)]


def main() -> None:
    done = subprocess.run([sys.executable, "-m", "snakemake", "--lint"], capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode and not list(lints(said)):
        sys.exit(said)  # not a lint: the workflow cannot be read
    if found := left(said):
        sys.exit("\n".join(found))
    print(f"Snakefile and rules: no lint but the {len(NOT_HERE)} kinds that do not hold here")


if __name__ == "__main__":
    main()
