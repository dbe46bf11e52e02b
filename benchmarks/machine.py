"""What a measurement ran on, and the folder that its results go to."""

import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import CANDIDATES, version
from hessketch.provenance import environment


def processor() -> str:
    """Model name of the CPU, as the kernel tells it where it does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def slug(device: torch.device) -> str:
    """A folder name for the device: `cpu-` or `cuda-` and its model in lower case and dashes."""
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return f"{device.type}-" + re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")


def record(device: torch.device, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything needed to repeat a measurement: settings, versions, device, source, date."""
    distributions = dict.fromkeys(c.distribution for c in CANDIDATES if c.distribution)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings,
        "processor": processor(),
        **environment(device),
        "peers": {name: version(name) for name in distributions},
    }
