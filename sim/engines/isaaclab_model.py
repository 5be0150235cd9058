"""What Newton makes of our robot that our MJCF says otherwise, put right before its model is allocated.

- A servo with stiffness and damping becomes two actuators, limited together by the joint.  Of such a pair MuJoCo's
  implicit integrator keeps the damping while the torque is cut off, of one limited actuator it does not.
- Self collision is one switch for all pairs; ours are the pairs of fingertips.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from isaaclab.physics import PhysicsEvent
from isaaclab.sim import SimulationContext
from isaaclab_newton.physics import NewtonManager
from isaaclab_newton.physics.newton_manager_cfg import NewtonBuilderCfg
from newton import JointTargetMode

from palmar.safety.types import ConfigError

AFTER_ASSETS = 10
"""Order among the listeners: Isaac Lab's assets set the modes of their joints first, with 0."""
ROBOT = "Robot"
"""Name of the robot's prim in a world."""
TIPS = 1
"""Newton's collision group of the fingertips.  Shapes of one positive group touch each other; shapes of a negative one
touch all but those of the same group."""


def before_allocation(joints: Sequence[str], tips: Sequence[str]) -> Any:
    """Have the running simulation's builder put right; keep the handle while the simulation lives.

    Args:
        joints: Driven by position servos.
        tips: Shapes that touch each other.
    """
    told = partial(_put_right, joints=frozenset(joints), tips=frozenset(tips))
    return NewtonManager.register_callback(told, PhysicsEvent.MODEL_INIT, order=AFTER_ASSETS, wrap_weak_ref=False)


def solver() -> Any:
    """Newton's solver of the running simulation."""
    return NewtonManager._solver


def _put_right(_event: Any, *, joints: frozenset[str], tips: frozenset[str]) -> None:
    sim = SimulationContext.instance()
    builder = sim.get_or_create_backend(NewtonBuilderCfg(physics_cfg=sim.cfg.physics))
    single_servos(builder, joints)
    builder.shape_collision_group = groups(list(builder.shape_label), list(builder.shape_collision_group), tips)


def single_servos(builder: Any, joints: frozenset[str]) -> None:
    """Drive each of the joints, in every world, by one actuator with stiffness and damping.

    Raises:
        ConfigError: If a joint is missing.
    """
    found = set()
    for joint, label in enumerate(builder.joint_label):
        name = label.rsplit("/", maxsplit=1)[-1]
        if name in joints:
            found.add(name)
            builder.joint_target_mode[builder.joint_qd_start[joint]] = int(JointTargetMode.POSITION)
    if found != joints:
        raise ConfigError(f"Newton's model has no joints {sorted(joints - found)}")


def groups(labels: Sequence[str], before: Sequence[int], tips: frozenset[str]) -> list[int]:
    """Newton's collision group of every shape: tips touch tips, other shapes of the robot nothing of the robot.

    Worlds are numbered alike.  Shapes that collided with nothing (group 0) still do not.
    """
    own: dict[str, int] = {}
    out = []
    for label, group in zip(labels, before, strict=True):
        world, inside = _split(label)
        robot, name = inside.startswith(f"{ROBOT}/"), inside.rsplit("/", maxsplit=1)[-1]
        if group == 0:
            out.append(0)
        elif robot and name in tips:
            out.append(TIPS)
        else:
            number = own.setdefault(inside, TIPS + 1 + len(own))
            out.append(number if robot else -number)
    return out


def _split(label: str) -> tuple[str, str]:
    """A shape's label in two: the world, and the path within it."""
    head, _, tail = label.partition("/env_")
    number, _, inside = tail.partition("/")
    return f"{head}/env_{number}", inside
