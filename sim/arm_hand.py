"""One MJCF of an arm and a hand, by folders of ``assets``: the hand's palm fixed to the arm's link 7.

An arm is ``<arm>/<arm>.xml`` with bodies ``<arm>_link0`` to ``<arm>_link7``, a hand ``<hand>/<hand>_right.xml`` with a
body ``palm``; see docs/add_a_robot.md.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from palmar.safety.types import ConfigError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
FLANGE = 0.107
"""The flange along link 7's z [m]."""
PALMS = {
    "leap": ((-0.011, 0.033, 0.137), (0.7071067811865476, 0.0, -0.7071067811865476, 0.0)),
    "allegro": ((0.0093, 0.0, 0.140), (1.0, 0.0, 0.0, 0.0)),
}
"""Palm in the flange frame, position [m] and w-x-y-z: the fingers along the flange's z, curling towards its x.

Of hands whose file has the palm at its origin; others say it there, by the pose of ``palm``.
"""
HAND_SECTIONS = {"compiler", "option", "size", "visual", "statistic", "default", "asset", "worldbody", "actuator",
                 "contact", "sensor", "keyframe"}  # fmt: skip
"""Sections a hand's MJCF may have; its contact, sensor and keyframe are the scene's business and are left out."""


def arms() -> dict[str, Path]:
    """The MJCF of each arm there is, by name."""
    return {p.stem: p for p in sorted(ASSETS.glob("*/*.xml")) if p.stem == p.parent.name}


def hands() -> dict[str, Path]:
    """The MJCF of each hand there is, by name."""
    return {p.parent.name: p for p in sorted(ASSETS.glob("*/*.xml")) if p.stem == f"{p.parent.name}_right"}


def arm_hand_xml(arm: str, hand: str) -> str:
    """``merged`` of an arm and a hand by name.

    Raises:
        ConfigError: If there is no such arm or hand, naming those there are, or the two do not fit.
    """
    of_arm, of_hand = arms(), hands()
    if arm not in of_arm or hand not in of_hand:
        raise ConfigError(f"assets/ has the arms {list(of_arm)} and the hands {list(of_hand)}, got {arm!r}, {hand!r}")
    return merged(of_arm[arm], of_hand[hand], arm=arm, hand=hand)


def merged(arm_path: Path, hand_path: Path, *, arm: str, hand: str) -> str:
    """One MJCF of two; the hand's classes, materials and meshes get ``hand_`` before their names.

    Not `MjSpec.attach`: without a name prefix it warns (and logs to a file) and refuses repeated materials.

    Raises:
        ConfigError: If a file is no XML or lacks a part, or the hand would not be the same on the arm.
    """
    arm_root, hand_root = _parsed(arm_path), _parsed(hand_path)
    _check(hand_root, hand_path)
    for root, path in ((arm_root, arm_path), (hand_root, hand_path)):
        for mesh in root.findall("asset/mesh"):
            mesh.set("file", str(path.resolve().parent / "assets" / mesh.attrib["file"]))
    _prefix(hand_root)
    palm = _found(hand_root, "worldbody/body")
    _mount(palm, hand)
    _found(arm_root, f".//body[@name='{arm}_link7']").append(palm)
    arm_defaults = _found(arm_root, "default")
    if (defaults := hand_root.find("default")) is not None:
        defaults.set("class", "hand")
        palm.set("childclass", palm.get("childclass", "hand"))
        for actuator in hand_root.findall("actuator/*"):
            actuator.set("class", actuator.get("class", "hand"))
        arm_defaults.append(defaults)
    for section in ("asset", "actuator"):
        _found(arm_root, section).extend(hand_root.findall(f"{section}/*"))
    for section in ("contact", "keyframe"):
        for element in arm_root.findall(section):
            arm_root.remove(element)
    _found(arm_root, "compiler").attrib.pop("meshdir", None)
    return ET.tostring(arm_root, encoding="unicode")


def _parsed(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()
    except ET.ParseError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check(hand: ET.Element, path: Path) -> None:
    """Refuse a hand that would not be the same hand on the arm."""
    lost = {element.tag for element in hand} - HAND_SECTIONS
    if lost:
        raise ConfigError(f"{path.name}: accepted sections are {sorted(HAND_SECTIONS)}, got {sorted(lost)} besides")
    bodies = [body.get("name") for body in hand.findall("worldbody/body")]
    if bodies != ["palm"]:
        raise ConfigError(f"{path.name}: needs one body `palm` with all of the hand in it, got {bodies}")
    angle = [c.get("angle", "degree") for c in hand.findall("compiler")] or ["degree"]
    if angle != ["radian"]:
        raise ConfigError(f'{path.name}: needs <compiler angle="radian"/> as the arms have, got {angle}')


def _prefix(hand: ET.Element) -> None:
    """Names of classes, materials and meshes that cannot meet the arm's."""
    for element in hand.iter():
        names = ("class", "childclass", "material", "mesh")
        names += ("name",) if element.tag in ("mesh", "material") else ()
        for name in set(names) & element.attrib.keys():
            element.set(name, "hand_" + element.attrib[name])


def _mount(palm: ET.Element, hand: str) -> None:
    """Put the palm's pose, given in the flange frame, into link 7's."""
    x, y, z = map(float, palm.get("pos", "0 0 0").split())
    if hand in PALMS:
        (x, y, z), quat = PALMS[hand]
        palm.set("quat", " ".join(map(str, quat)))
    palm.set("pos", " ".join(map(str, (x, y, z + FLANGE))))


def _found(root: ET.Element, path: str) -> ET.Element:
    """The element at ``path``, which must exist."""
    element = root.find(path)
    if element is None:
        raise ConfigError(f"MJCF {root.get('model', '')!r} has no {path}")
    return element
