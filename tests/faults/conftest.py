"""Smoke cases run always, the others with ``-m "fault or not fault"``; helpers of other test folders are importable."""

import sys
from pathlib import Path

for folder in ("real_robot", "faults"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))


def pytest_configure(config):
    config.addinivalue_line("markers", 'fault: a named fault; all of them run with -m "fault or not fault"')


def pytest_collection_modifyitems(config, items):
    """Leave out what is no smoke case, unless the marker is asked for, or cases by name."""
    if "fault" in (config.option.markexpr or "") or config.option.keyword:
        return
    here = str(Path(__file__).parent)
    out = [i for i in items if i.get_closest_marker("fault") and str(i.path).startswith(here)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [i for i in items if i not in set(out)]
