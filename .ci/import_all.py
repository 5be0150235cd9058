"""Import every module of the installed palmar; the ROS 2 nodes may lack rclpy.  Run from an empty folder."""

import importlib
import sys
from importlib.metadata import files

NEEDS_RCLPY = "palmar.real_robot.nodes."

modules = sorted(
    str(f.with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for f in files("palmar") or []
    if f.suffix == ".py" and str(f).startswith("palmar/")
)
failed = []
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not (name.startswith(NEEDS_RCLPY) and error.name and not error.name.startswith("palmar")):
            failed.append(f"{name}: {error}")
    except Exception as error:  # every failure is reported, not only the first
        failed.append(f"{name}: {error!r}")
print(f"{len(modules) - len(failed)} of {len(modules)} modules import")
print("\n".join(failed), end="")
sys.exit(bool(failed) or not modules)
