"""An nvidia-smi that lists what it is told to, and processes that lease its GPUs."""

import os
import subprocess
import sys
from pathlib import Path

_LEASE = """
import sys, time
from hessketch.gpu_leases import lease_gpus
import logging
logging.basicConfig(format="%(message)s", stream=sys.stdout)
count, places = map(int, sys.argv[1:3])
lease_gpus(count, places)
import os
print("LEASED", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


def fake_gpus(folder: Path, count: int) -> dict[str, str]:
    """Environment of a machine with GPUs named GPU-0, GPU-1, ...; each call of the tool is a line in `folder/calls`."""
    (folder / "bin").mkdir()
    lines = [f"GPU {i}: NVIDIA Test (UUID: GPU-{i})" for i in range(count)]
    write_tool(folder, "\n".join(lines))
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(folder)}


def write_tool(folder: Path, listing: str) -> None:
    """Puts the script in its place."""
    tool = folder / "bin/nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho $@ >> {folder}/calls\ncat <<'END'\n{listing}\nEND\n")
    tool.chmod(0o755)


class Job:
    """A process that asks for GPUs and keeps them until it is ended."""

    def __init__(self, environment: dict[str, str], count: int = 1, places: int = 1):
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LEASE, str(count), str(places)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def line(self) -> str:
        """What it says next."""
        return self.process.stdout.readline().strip()

    def gpus(self) -> list[str]:
        """The UUIDs that it has in the end, whatever it says before; waits for them."""
        for line in self.process.stdout:
            if line.startswith("LEASED "):
                return line.split()[1].split(",")
        raise AssertionError("ended without a lease")

    def kill(self) -> None:
        """SIGKILL: it has no time to tidy up."""
        self.process.kill()
        self.process.communicate()
