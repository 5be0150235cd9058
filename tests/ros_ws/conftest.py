"""Makes the workspace's packages, and the toy robot of the other folder, importable."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
for folder in ("ros_ws/src/palmar_bringup", "ros_ws/src/palmar_nodes", "tests/real_robot"):
    sys.path.insert(0, str(ROOT / folder))
