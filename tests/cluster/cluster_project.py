"""A project whose jobs go to a cluster."""

import importlib.util
import subprocess
import sys
from pathlib import Path

PIPELINE = importlib.util.spec_from_file_location("pipeline", Path(__file__).parents[1] / "pipeline/conftest.py")
pipeline = importlib.util.module_from_spec(PIPELINE)
PIPELINE.loader.exec_module(pipeline)
# As the profile of the project says, but for how often this cluster without accounting is asked.
TO_SLURM = ["--workflow-profile", "profiles/slurm", "--slurm-status-command", "squeue", "--latency-wait", "10"]
TO_SLURM += ["--slurm-init-seconds-before-status-checks", "1", "--jobs", "3"]


class ClusterProject(pipeline.Project):
    """The copied project: runs snakemake here or on a cluster."""

    def submit(self, environment: dict[str, str], *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "snakemake", *arguments, *TO_SLURM, "--configfile", "config/tiny.yaml"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**environment, "PYTHONPATH": str(self.folder / "src"), "HESSKETCH_SAVE_EVERY": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
