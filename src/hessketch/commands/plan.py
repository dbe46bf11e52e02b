"""Say what a profile costs before it is started: jobs, work, memory and time on a device, by stage.

Prints jobs, SGD steps, operator products, gradients, floating-point operations, memory of the largest job and time by
stage, and how the time grows when numbers of examples or widths are doubled. Times follow from what has been measured
on the device (`python -m benchmarks.throughput`); those of a GPU without measurements from its data sheet, and then the
plan says so. With --measured, what the jobs of a run took (Snakemake's benchmark files) stands beside it.

examples:
  python -m hessketch plan --configfile config/paper.yaml --device h200 --cores 8
  python -m hessketch plan --measured logs/demo/benchmarks
"""

import argparse
from dataclasses import replace
from pathlib import Path

import yaml

from hessketch.cli import whole_number
from hessketch.config import config_problems
from hessketch.config_schema import fill_defaults
from hessketch.config_text import repeated_keys
from hessketch.errors import InputError
from hessketch.records import write_record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--configfile", type=Path, help="profile (default: the demo's)")
    parser.add_argument("--device", help="a device with measurements, or a GPU (default: the first measured)")
    parser.add_argument(
        "--cores", type=whole_number(1), default=1, help="jobs at a time: CPU cores, or GPUs (default: 1)"
    )
    parser.add_argument("--measured", type=Path, help="folder of benchmark files to compare with, logs/demo/benchmarks")
    parser.add_argument("--workflow", type=Path, default=Path(), help="folder of the Snakefile (default: this one)")
    parser.add_argument("--output", type=Path, help="JSON file to write the plan into")


def run(arguments: argparse.Namespace, progress) -> None:
    from hessketch.planning.costs import computing_jobs, costs_of
    from hessketch.planning.jobs import Plan
    from hessketch.planning.measured import compared
    from hessketch.planning.report import comparison, report
    from hessketch.planning.sizes import Scale
    from hessketch.planning.stages import counted_by_snakemake
    from hessketch.planning.throughput import find_device

    configfile = arguments.configfile or arguments.workflow / "config/demo.yaml"
    config = read_config(configfile, arguments.workflow / "config/schema.yaml")
    device = find_device(arguments.device, arguments.workflow / "benchmarks/results")
    device = replace(device, memory=device.memory / (1 if device.is_gpu else arguments.cores))
    if arguments.measured:
        found = compared(computing_jobs(Plan(config, Scale(), device.memory)), device, arguments.measured)
        print(comparison(found, device.name))
        return
    progress.say("asking Snakemake for the jobs")
    costs = costs_of(config, counted_by_snakemake(arguments.workflow, configfile), device, arguments.cores)
    print(report(costs))
    if arguments.output:
        write_record(costs.record(), arguments.output)


def read_config(configfile: Path, schema_file: Path) -> dict:
    """A profile with its defaults filled; raises InputError naming every problem."""
    try:
        schema, config = (yaml.safe_load(path.read_text()) for path in (schema_file, configfile))
        repeated = repeated_keys(configfile)
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{configfile} cannot be read as a profile of {schema_file.parent}: {error}") from None
    problems = repeated + config_problems(config, schema)
    if problems:
        raise InputError(f"{configfile}: {len(problems)} to mend\n" + "\n".join(f"  {line}" for line in problems))
    return fill_defaults(config, schema)
