"""Import every module of the installed palmar; ROS 2 nodes may lack rclpy, engine isaaclab its simulator.

Run from an empty folder.
"""

import importlib
import sys
from importlib.metadata import files

ELSEWHERE = ("palmar.real_robot.nodes.", "palmar.sim.engines.isaaclab")
"""What needs ROS 2 or Isaac Lab, which come with environments of their own."""

modules = sorted(
    str(f.with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for f in files("palmar") or []
    if f.suffix == ".py" and str(f).startswith("palmar/")
)
failed, without = [], []
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if name.startswith(ELSEWHERE) and error.name and not error.name.startswith("palmar"):
            without.append(name)
        else:
            failed.append(f"{name}: {error}")
    except Exception as error:  # every failure is reported, not only the first
        failed.append(f"{name}: {error!r}")
done = len(modules) - len(failed) - len(without)
print(f"{done} of {len(modules)} modules import; {len(without)} wait for ROS or Isaac: {', '.join(without) or 'none'}")
print("\n".join(failed), end="")
sys.exit(bool(failed) or not modules)
