"""Smoke cases run always, the others by ``make faults``; helpers of other test folders are importable."""

import sys
from pathlib import Path

for folder in ("real_robot", "faults"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
