"""Jobs of a workflow on a machine whose driver lists two GPUs. The scripts compute nothing: they hold what they lease.

The rules, what they ask Snakemake for, the flags that they pass and the leases are the real ones.
"""

import os
import subprocess
import sys

from conftest import TINY

STUB = """
import argparse, os, time
from pathlib import Path
from hessketch.gpu_leases import lease_gpus
parser = argparse.ArgumentParser()
for flag, default in dict(jobs_per_gpu=1, processes=1, output=None, model=None, selection=None).items():
    parser.add_argument("--" + flag.replace("_", "-"), default=default)
given, _ = parser.parse_known_args()
kind, timeline = Path(__file__).stem, Path("timeline")
def tell(word):
    with timeline.open("a") as file:
        file.writelines(f"{word} {kind} {gpu}\\n" for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(","))
if kind in ("train", "spectrum"):
    lease_gpus(int(given.processes), int(given.jobs_per_gpu))
    tell("start")
    end = time.monotonic() + 20  # until all trainings that may run at once have begun, however slow the machine is
    while kind == "train" and timeline.read_text().count("start train") < 4 and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.2)
    tell("end")
tables = [f"{table}.parquet" for table in ("density", "ritz", "eigenvalues", "bounds", "sums")]
names = dict(train=["model.safetensors", "history.parquet", "record.json", "epoch1.safetensors"],
             spectrum=[*tables, "record.json"]).get(kind)
for path in [Path(given.output, name) for name in names] if names else [given.output, given.model, given.selection]:
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
"""


def most_at_once(lines):
    """The most of each script that held a GPU, or any, at the same time; no spectrum ever shares one."""
    now, most = {}, {}
    for word, script, gpu in lines:
        for key in ((script, gpu), (script, "any")):
            now[key] = now.get(key, 0) + (1 if word == "start" else -1)
            most[key] = max(most.get(key, 0), now[key])
        other = "train" if script == "spectrum" else "spectrum"
        assert not now.get((other, gpu)), "a spectrum has its GPU alone"
    return most


def test_trainings_share_two_gpus_as_asked_and_a_spectrum_has_both_alone(project, tmp_path):
    spectrum = {**TINY["spectrum"], "processes": "all"}
    project.configure(device="auto", jobs_per_gpu=2, spectrum=spectrum)
    for script in ("prepare_data", "train", "select_learning_rate", "spectrum"):
        (project.folder / f"workflow/scripts/{script}.py").write_text(STUB)
    tool = tmp_path / "bin/nvidia-smi"
    tool.parent.mkdir()
    listing = "\n".join(f"GPU {i}: NVIDIA Test (UUID: GPU-{i})" for i in range(2))
    tool.write_text(f"#!/bin/sh\necho >> {tmp_path}/calls\necho '{listing}'\n")
    tool.chmod(0o755)
    command = [sys.executable, "-m", "snakemake", "spectra", "--cores", "4", "--configfile", "config/tiny.yaml"]
    environment = {"PYTHONPATH": str(project.folder / "src"), "TMPDIR": str(tmp_path)}
    environment |= {"PATH": f"{tool.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=project.folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "device: NVIDIA Test, NVIDIA Test;" in done.stderr
    most = most_at_once(line.split() for line in (project.folder / "timeline").read_text().splitlines())
    places = ("GPU-0", "GPU-1", "any")
    assert [most["train", place] for place in places] == [2, 2, 4]
    assert [most["spectrum", place] for place in places] == [1, 1, 2]  # one job at a time
    assert (tmp_path / "calls").read_text().count("\n") == 1 + 4 + 4, "the workflow asks the driver once, each job once"
