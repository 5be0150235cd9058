"""The scene from Menagerie's own models of arm and hand: what our primitive ones are compared with."""

from __future__ import annotations

from pathlib import Path

import mujoco

from palmar.safety.types import ConfigError
from palmar.sim.arm_hand import merged
from palmar.sim.scene import HAND_JOINTS, SOLIMP, SOLREF, furnished, robot_spec


def reference_robot_spec(assets_dir: Path) -> mujoco.MjSpec:
    """The same scene from Menagerie's models: their meshes, boxes, inertias and friction; our actuators.

    Kept: geometry, masses, joint damping and friction (tips 0.5, other hand geoms 0.2; MuJoCo takes the
    larger of a pair, so a block's 1.0 decides).  Replaced by ours, so that a policy trained on `robot_spec`
    runs unchanged: option, actuator names, gains and force ranges, hand armature and gravity compensation,
    collision bits, sites, sensors' names.  solref and solimp are ours too: LEAP's 1e-4 s makes force spikes
    of 160-200 N at a 5 ms step.  Joint ranges stay theirs; control ranges are ours (equal or tighter).

    Args:
        assets_dir: Folder with `franka_fr3_lite/fr3.xml` and `leap_hand_lite/right_hand.xml`.

    Raises:
        ConfigError: If a model is missing.
    """
    paths = [Path(assets_dir) / p for p in ("franka_fr3_lite/fr3.xml", "leap_hand_lite/right_hand.xml")]
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"no reference model at {path}")
    spec = mujoco.MjSpec.from_string(merged(*paths, arm="fr3", hand="leap"))
    _adopt_reference(spec)
    return furnished(spec, "fr3")


def _adopt_reference(spec: mujoco.MjSpec) -> None:
    """Give Menagerie's models our actuators, sites and contact softness."""
    ours = robot_spec().compile()
    spec.delete(spec.site("attachment_site"))
    for actuator in spec.actuators:
        _copy_actuator(actuator, ours.actuator(actuator.target))
    for geom in spec.geoms:
        geom.solref, geom.solimp = SOLREF, SOLIMP
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
    for name in HAND_JOINTS:
        spec.joint(name).armature = float(ours.dof_armature[ours.joint(name).dofadr[0]])
    for k in range(ours.nsite):
        body = spec.body(ours.body(ours.site_bodyid[k]).name)
        body.add_site(name=ours.site(k).name, pos=ours.site_pos[k], size=[0.003] * 3, group=4)


def _copy_actuator(actuator: mujoco.MjsActuator, ours) -> None:
    """Name, gains and ranges of one of our compiled position actuators."""
    actuator.name, actuator.inheritrange = actuator.target, 0.0
    actuator.gainprm, actuator.biasprm = ours.gainprm, ours.biasprm
    actuator.ctrlrange, actuator.forcerange = ours.ctrlrange, ours.forcerange
