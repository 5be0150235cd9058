"""Convert Palmar's robots from MJCF to USD, for Isaac Lab.

Run by hand in Isaac Lab's environment when a robot's MJCF changes; the result is shipped, so no run needs a converter.

    .venv-isaac/bin/python -m palmar.assets.convert_usd [robot ...]

The robot alone is converted: table, objects and sensors are spawned by Isaac Lab from the task's own MJCF
(``palmar.sim.engines.isaaclab_scene``).  Variants of the result: ``mujoco`` (what we run; it alone keeps contact
dimension and softness), ``physics`` and ``physx``.  Lost on the way: ellipsoids that are only seen, gravity
compensation (set again when the scene is built) and the collisions of the base, which stands in the table: MuJoCo
excludes that pair, USD has no words for it.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from palmar.sim import scene
from palmar.sim.robots import arm_and_hand, robot_names

USD = Path(__file__).resolve().parent / "usd"


def robot_mjcf(name: str) -> str:
    """MJCF of a robot without table, cameras, light and textures."""
    spec = scene.robot_spec(*arm_and_hand(name))
    spec.modelname = name
    for element in (spec.geom(scene.TABLE), *spec.cameras, *spec.lights, *spec.excludes, spec.material("table")):
        spec.delete(element)
    for texture in list(spec.textures):
        spec.delete(texture)
    model = spec.compile()
    for geom in spec.geoms:
        if model.body_weldid[model.geom(geom.id).bodyid[0]] == 0:
            geom.contype = geom.conaffinity = 0
    spec.compile()
    return spec.to_xml()


def convert(name: str, folder: Path) -> Path:
    """Write the USD of a robot to ``folder/<name>`` and return its root layer.

    Raises:
        ConfigError: If there is no such robot.
        ImportError: Outside of Isaac Lab's environment.
    """
    text = robot_mjcf(name)
    from isaaclab.sim.converters import MjcfConverter, MjcfConverterCfg

    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / f"{name}.xml"
        source.write_text(text)
        # Without fix_base the converter removes the base's weld to the world: a floating robot, and no error.
        config = MjcfConverterCfg(asset_path=str(source), usd_dir=scratch, fix_base=True, force_usd_conversion=True)
        made = Path(MjcfConverter(config).usd_path)
        target = folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made.parent, target)
    for layer in target.rglob("*.usda"):
        layer.write_text(tidied(layer.read_text()))
    return target / made.name


def tidied(layer: str) -> str:
    """A text layer without the paths of the machine it was made on."""
    layer = re.sub(r'^ *doc = """.*?"""\n', "", layer, count=1, flags=re.S | re.M)
    return re.sub(r"[ \t]+$", "", layer, flags=re.M)


def main(names: list[str]) -> None:
    """Convert the named robots, or every one."""
    for name in names or robot_names():
        print(convert(name, USD))


if __name__ == "__main__":
    main(sys.argv[1:])
