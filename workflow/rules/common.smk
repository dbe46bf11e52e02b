# What every rule file uses: the checked config, the runs it asks for, paths, and how scripts are called.
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import sys
import urllib.parse
import urllib.request
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

# Jobs use the interpreter that runs Snakemake, whether or not its environment is activated.
shell.prefix(f'set -euo pipefail; export PATH="{Path(sys.executable).parent}:$PATH"; ')

sys.path.insert(0, str(Path(workflow.basedir) / "src"))
try:
    from hessketch.config import (
        config_problems, data_problems, datasets_of, extensions_of, fill_defaults, folder_problems, runs_of,
        trajectory_runs_of,
    )  # fmt: skip
    from hessketch.config_runs import job_of
    from hessketch.config_text import repeated_keys
    from hessketch.damage import damaged_results
    from hessketch.eigenspace_config import (
        EIGENSPACES, eigenpair_problems, eigenspace_trainers_of, kept_steps, with_dataset,
    )  # fmt: skip
    from hessketch.extensions import kinds_of, registered, tell_jobs
    from hessketch.federation_config import federated_runs_of, group_of, reduction_problems, settings_of, spectra_of
    from hessketch.gpus import visible_gpus
    from hessketch.job_locks import commands_to_end
    from hessketch.landscape_configs import BASINS, HIERARCHY, OVER_PARAMETRIZED, exact_problems, is_of_hierarchy
    from hessketch.ledger import file_digest
    from hessketch.planning import stages
    from hessketch.records import write_atomically
    from hessketch.runs import Run, number_text
    from hessketch.trainers import Trainer
    from hessketch.trajectory_configs import (
        DYNAMICS, PREDICTOR, followed_size, predictor_trainers_of, rank_problems, top_of,
    )  # fmt: skip
except ImportError as error:
    raise WorkflowError(f"hessketch is not installed in this environment ({error}); run: make")

STAGES = dict(stages.STAGES)

# What each study shows, put here by its rule file: title, figures ((folder, file name) to the plotting script's arguments),
# tables.
SHOWN = {}

CONFIGFILES = workflow.config_settings.configfiles or ["config/demo.yaml"]
SCHEMA = yaml.safe_load((Path(workflow.basedir) / "config/schema.yaml").read_text())


def stop_with(problems):
    if problems:
        names = ", ".join(map(str, CONFIGFILES))
        raise WorkflowError(f"{names}: {len(problems)} to mend\n" + "\n".join(f"  {line}" for line in problems))


if workflow.is_main_process:
    stop_with([line for file in CONFIGFILES for line in repeated_keys(file)])
stop_with(config_problems(config, SCHEMA))
config = fill_defaults(config, SCHEMA)
EXTENSIONS = extensions_of(config, ".py")
tell_jobs(EXTENSIONS)

RESULTS = f"results/{config['profile']}"
FIGURES = f"figures/{config['profile']}"
LOGS = f"logs/{config['profile']}"
stop_with(folder_problems([RESULTS, FIGURES, LOGS, "resources"]))
RUNS = runs_of(config)
FEDERATED_RUNS = federated_runs_of(config)


def gathered(runs, key):
    together = {}
    for run in runs:
        together.setdefault(key(run), []).append(run)
    return together


# The runs that differ in their learning rate alone, by the path of their cell. A federated one's rate is selected over
# all seeds of its group.
CELLS = gathered(RUNS, lambda run: run.cell.path)
FEDERATED_CELLS = gathered(FEDERATED_RUNS, lambda run: run.cell.path)
GROUPS = gathered(FEDERATED_RUNS, group_of)
# Runs that keep their weights on the way, by the section that asks for them, and then by the job that trains them.
TRAJECTORY_RUNS = trajectory_runs_of(config)
TRAJECTORY_JOBS = {
    study: gathered(runs, lambda run: job_of(config[study], run)) for study, runs in TRAJECTORY_RUNS.items() if runs
}


def group_records(cell):
    """Records of all rates and seeds of a federated cell's group; of a cell trained by SGD none."""
    return [f"{RESULTS}/runs/{run.path}/record.json" for run in GROUPS.get(group_of(Run.from_path(cell)), [])]


def section_of(cell):
    """The section of the config that asks for a cell: its own `federation`, or the whole."""
    return config["federation"] if Trainer.parse(Run.from_path(cell).trainer).federated else config


# A cluster's profile says how many GPUs a job gets there (default-resources: gpu); elsewhere this machine's GPUs do.
GPU_ON_CLUSTER = (workflow.resource_settings.default_resources or {}).get("gpu")
ON_CLUSTER = GPU_ON_CLUSTER is not None
# A job on a cluster reads this file again: it goes by the GPUs that its submitter found.
if workflow.is_main_process or "HESSKETCH_GPUS" not in os.environ:
    os.environ.update(HESSKETCH_GPUS=json.dumps([gpu.name for gpu in visible_gpus()]))
GPUS = json.loads(os.environ.get("HESSKETCH_GPUS")) if config["device"] != "cpu" and not ON_CLUSTER else []
JOBS_PER_GPU = config["jobs_per_gpu"]
# Of this machine's GPUs each has so many places: a training takes one, any other job a whole GPU. Which GPU that is each
# job settles with the others (hessketch.gpu_leases); a cluster counts its GPUs itself, so the scope is local.
if GPUS and workflow.is_main_process:
    workflow.global_resources.setdefault("gpu_places", JOBS_PER_GPU * len(GPUS))


resource_scopes:
    gpu_places="local",


# Two data sets may be parts of one: they are not downloaded into the same folder side by side.
workflow.global_resources.setdefault("download", 1)
if ON_CLUSTER and config["device"] != "cpu":
    GPU_PER_JOB = int(GPU_ON_CLUSTER.value)
else:
    GPU_PER_JOB = 1 if GPUS or config["device"] == "cuda" else 0
# On a CPU one thread a job lets jobs run side by side; on GPUs four, or fewer where cores would keep a GPU waiting.
CORES_PER_PLACE = (workflow.resource_settings.cores or os.cpu_count()) // (JOBS_PER_GPU * len(GPUS)) if GPUS else 4
THREADS_PER_JOB = max(1, min(4, CORES_PER_PLACE)) if GPU_PER_JOB else 1


def needs(mem_mb, minutes, gpus=1, shares_gpu=False):
    """Resources of a rule that computes. A repeated attempt may take more memory and time: it resumes, on a cluster."""
    return {
        "gpu": GPU_PER_JOB * gpus,
        "gpu_places": GPU_PER_JOB * (1 if shares_gpu else JOBS_PER_GPU * gpus),
        "mem_mb": lambda wildcards, attempt: attempt * mem_mb,
        "runtime": lambda wildcards, attempt: attempt * minutes,
    }


# Which part of the package uses what an extension registers: only stages that read it depend on the extension.
READ_BY = {
    "network": {"networks", "figures"},
    "dataset": {"data", "figures"},
    "method": {"federated", "figures"},
    "operator": {"curvature", "figures"},
    "claim": {"claims"},
}


digest_of = functools.cache(file_digest)


@functools.cache
def code(*parts, extensions=tuple(EXTENSIONS)):
    """A list of digests of the package files that a stage depends on; an edit of one reruns just those stages.

    One file instead of a hundred inputs a job: Snakemake looks at every input of every job again and again. It compares
    by content, so a checkout changes nothing. Not in the list is what says how a job runs and is recorded, never what
    comes out: leases, locks, ledgers. The profile's own extensions are, where the stage reads what they register.
    """
    package = Path(workflow.basedir) / "src/hessketch"
    files = [package / "errors.py", package / "records.py", package / "cli.py", package / "progress.py"]
    for part in parts:
        files += sorted((package / part).glob("*.py")) if (package / part).is_dir() else [package / f"{part}.py"]
    floors = {part.partition("/")[0] for part in parts}
    own = [
        file for file in extensions if not (kinds := kinds_of(file)) or any(floors & READ_BY[kind] for kind in kinds)
    ]
    digests = {os.path.relpath(file): digest_of(file) for file in [*files, *own]}
    which = hashlib.sha256("\n".join([*parts, *own]).encode()).hexdigest()[:8]
    listed = Path(".snakemake/hessketch") / f"{Path(parts[0]).name}-{which}.sha256"
    text = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    # Jobs on other machines parse this too, and find what the submitting process has written.
    if workflow.is_main_process and not (listed.is_file() and listed.read_text() == text):
        write_atomically(listed, lambda place: place.write_text(text))
    return str(listed)


def flags(settings):
    """{'batch_size': 128, 'reorthogonalize': True} as '--batch-size 128 --reorthogonalize'."""
    words = []
    for key, value in settings.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, list):
            words += [flag, *map(str, value)] if value else []
        elif value is not False:
            words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words)


def can_reach(url):
    """Whether a server answers; behind a proxy only a download itself can tell."""
    if urllib.request.getproxies():
        return True
    parts = urllib.parse.urlsplit(url)
    try:
        socket.create_connection((parts.hostname, 80 if parts.scheme == "http" else 443), timeout=5).close()
    except OSError:
        return False
    return True


def counted(count, stage):
    """'2 spectra of checkpoints', '1 spectrum of checkpoints'."""
    if count > 1:
        return f"{count} {stage}"
    noun, rest = re.fullmatch("(.*?)( (?:of|along|by) .*)?", stage).groups()
    return f"{count} {re.sub('spectra$', 'spectrum', noun).removesuffix('s')}{rest or ''}"


def too_many_processes():
    """A spectrum over more GPUs than there are."""
    if not GPUS or not workflow.local_exec or PROCESSES <= len(GPUS):
        return []
    given = f"spectrum.processes: {PROCESSES} given, this machine has {counted(len(GPUS), 'GPUs')}"
    return [f"{given}; allowed: at most that, or all"]


def still_running():
    """What ends the jobs that a killed Snakemake left running, where this one would begin them too."""
    commands = commands_to_end(log for job in workflow.dag.needrun_jobs() for log in job.log)
    words = f"{counted(len(commands), 'jobs')} of a Snakemake that was killed still at work"
    return [f"{words}; to end: {'; '.join(commands)}; then run the same command again"] if commands else []


def damage():
    """Damaged results, and the command that makes them anew: by name, since not every output is another's input."""
    found = damaged_results(["resources", RESULTS])
    made = {str(file) for job in workflow.dag.jobs for file in job.output}
    again = [file for file in found if file in made]
    command = f"rm {shlex.join(found)}" + (
        f" && snakemake {shlex.join([*again, *configfile_flags()])}" if again else ""
    )
    lines = [f"{file}: cannot be read, it is damaged or cut short ({why})" for file, why in found.items()]
    return [*lines, f"to make anew what is damaged: {command}"] if found else []


def cluster_problems():
    """What a cluster's profile needs and this machine lacks."""
    if ON_CLUSTER and workflow.non_local_exec and shutil.which("sbatch") is None:
        return ["no SLURM here (sbatch is not on PATH); run this on a login node, or leave out --workflow-profile"]
    return []


def start_or_explain():
    """The last check before the first job, and the banner."""
    of_networks = [
        *reduction_problems(config), *rank_problems(config), *eigenpair_problems(config), *exact_problems(config)
    ]  # fmt: skip
    of_machine = cluster_problems() + still_running() + too_many_processes()
    stop_with(of_machine + data_problems(config, can_reach) + of_networks + damage())
    jobs = [job.rule.name for job in workflow.dag.needrun_jobs()]
    counts = {}
    for rule, stage in STAGES.items():
        counts[stage] = counts.get(stage, 0) + sum(fnmatchcase(job, rule) for job in jobs)
    jobs = ", ".join(counted(count, stage) for stage, count in counts.items() if count)
    if ON_CLUSTER:
        device = "a GPU of the cluster for each job" if GPU_PER_JOB else "CPUs of the cluster"
    else:
        device = ", ".join(GPUS) or f"CPU, {counted(workflow.cores, 'cores')}"
    print(
        f"\nhessketch, profile {config['profile']}: {jobs or 'nothing to compute'}\ndevice: {device}; logs: {LOGS}/\n",
        file=sys.stderr,
    )


def report_arguments():
    """What follows `snakemake` in the command for its own report on what was asked for, with times and the rule graph."""
    # Targets first: after --configfile they would be config files too.
    words = [*workflow.dag_settings.targets, *configfile_flags()]
    return shlex.join([*words, "--report", f"{RESULTS}/workflow.html"])


def configfile_flags():
    """The command line's config files, as words of another command."""
    files = [os.path.relpath(file) for file in workflow.config_settings.configfiles]
    return ["--configfile", *files] if files else []


def existing(folders):
    """Those of the folders that there are, as text; after a part of the workflow not all."""
    return ", ".join(f"{folder}/" for folder in folders if Path(folder).is_dir())


wildcard_constraints:
    dataset=r"\w[\w.+-]*",
    run=r"[\w.:+/-]+/sgd/lr[\w.+-]+/seed[0-9]+",
    cell=r"(?:(?!/lr)[\w.:+/-])+/seed[0-9]+",
    split="train|test",


rule config:
    input:
        script="workflow/scripts/write_config.py",
    output:
        f"{RESULTS}/config.json",
    log:
        f"{LOGS}/config.log",
    localrule: True
    params:
        text=json.dumps(config),
    message:
        "Writing the profile's full config"
    shell:
        "python {input.script} --output {output} {params.text:q} > {log} 2>&1"
