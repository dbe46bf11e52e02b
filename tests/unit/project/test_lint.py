"""What `make check` leaves out of the lints of Snakemake, and what it does not."""

import importlib.util
from pathlib import Path

SPECIFICATION = importlib.util.spec_from_file_location("lint", Path(__file__).parents[3] / "workflow/lint.py")
lint = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(lint)

SAID = """Using workflow specific profile profiles/default for setting default command line arguments.
Lints for snakefile workflow/rules/training.smk:
    * Mixed rules and functions in same snakefile.:
      Small one-liner functions used only once should be defined as lambda
    * Absolute path "/home/me/data" in line 3:
      Do not define absolute paths inside of the workflow

Lints for rule train (line 7, workflow/rules/training.smk):
    * Specify a conda environment or container for each rule.:
      This way, the used software for each specific step is documented
    * Shell command directly uses variable JOBS_PER_GPU from outside of the rule:
      It is recommended to pass all files as input and output
    * No log directive defined:
      Without a log directive, all output will be printed
"""


def test_a_lint_that_holds_is_reported_with_its_place():
    assert lint.left(SAID) == [
        'snakefile workflow/rules/training.smk: Absolute path "/home/me/data" in line 3',
        "rule train (line 7, workflow/rules/training.smk): No log directive defined",
    ]


def test_every_lint_of_the_output_is_read():
    assert [title for _, title in lint.lints(SAID)] == [
        "Mixed rules and functions in same snakefile.",
        'Absolute path "/home/me/data" in line 3',
        "Specify a conda environment or container for each rule.",
        "Shell command directly uses variable JOBS_PER_GPU from outside of the rule",
        "No log directive defined",
    ]
