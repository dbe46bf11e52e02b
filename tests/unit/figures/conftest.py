"""Figures are drawn from the same synthetic tables that the studies are tested on."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
