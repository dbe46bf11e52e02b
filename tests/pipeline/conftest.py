"""A copy of the project in a temporary folder, in which the real Snakefile runs on tiny profiles.

Snakemake, its jobs and the kernels of notebooks are forked from a process that has imported what they need
(`warm/server.py`): most of a tiny job is imports. What goes by another command (`test_gpus_pipeline.py`, the papers'
profile in `test_faults.py`) starts as users start it.
"""

import os
import shutil
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WARM = Path(__file__).parent / "warm"
TINY = {
    "profile": "tiny",
    "device": "cpu",
    "seeds": [0],
    "datasets": {
        "digits": {
            "examples_per_class": [3, 6],
            "test_examples_per_class": 2,
            "learning_rates": [0.05, 0.02],
            "epochs": 3,
        }
    },
    "networks": [{"name": "vgg11", "norm": "batch", "width": 0.015625}],
    "losses": ["cross_entropy"],
    "training": {"batch_size": 16, "checkpoint_epochs": [1]},
    "spectrum": {"lanczos_steps": 12, "grid_points": 64, "deflation_rank": 2, "kpm_moments": 8},
    "figures": {"figure3_examples_per_class": 3, "figure4_examples_per_class": 6},
}

FEDERATION = {
    "datasets": {"digits": {"examples_per_class": 10, "test_examples_per_class": 3}},
    "networks": [{"name": "mlp", "norm": "none", "width": 0.05}],
    "seeds": [0, 1],
    "methods": ["count_sketch", "top_r_ef"],
    "reductions": [2.5],
    "learning_rates": [0.1, 0.03],
    "clients": 4,
    "rounds": 3,
    "local_steps": 2,
    "checkpoint_rounds": [1],
    "checkpoint_losses": [5],
    "spectra_of": ["count_sketch-x2.5"],
}


class Project:
    """The copied project: runs snakemake in it, with one config file."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("Snakefile", "workflow", "config", "profiles", "notebooks", "src"):
            source = ROOT / name
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=ignored)
            else:
                shutil.copy(source, folder / name)

    def configure(self, **changes) -> dict:
        """Writes config/tiny.yaml: TINY with top-level keys replaced."""
        config = {**deepcopy(TINY), **changes}
        (self.folder / "config/tiny.yaml").write_text(yaml.safe_dump(config))
        return config

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """`python -m snakemake ARGUMENTS --configfile config/tiny.yaml` in a process group of its own."""
        command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--configfile", "config/tiny.yaml"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(WARM), str(self.folder / "src")]), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def snakemake(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Runs it to its end; `stdout` holds both streams."""
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=400)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def made(self) -> list[str]:
        """Files that a run has written, besides Snakemake's own."""
        folders = [self.folder / name for name in ("results", "figures", "resources", "logs", "data")]
        return sorted(str(p.relative_to(self.folder)) for f in folders for p in f.rglob("*") if p.is_file())


@pytest.fixture(scope="session", autouse=True)
def server(tmp_path_factory):
    """The socket of a process that has imported what is forked from it; none where it cannot fork."""
    if not sys.platform.startswith("linux"):
        yield None
        return
    address = tmp_path_factory.mktemp("warm") / "socket"
    process = subprocess.Popen(
        [sys.executable, WARM / "server.py", address], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while not address.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.environ["WARM_PYTHON"] = str(address)
    yield address
    del os.environ["WARM_PYTHON"]
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Project, str]:
    """A project whose tiny profile has run to the end, and what Snakemake said."""
    project = Project(tmp_path_factory.mktemp("finished"))
    project.configure(outlier_hierarchy={"examples_per_class": [6]})
    done = project.snakemake()
    assert done.returncode == 0, done.stdout[-6000:]
    return project, done.stdout


@pytest.fixture
def project(tmp_path) -> Project:
    """A project in which nothing has run."""
    made = Project(tmp_path)
    made.configure()
    return made
