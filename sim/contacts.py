"""What a model says about touching: friction, softness and cones of a hand, as published, put into a scene."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from palmar.safety.types import ConfigError
from palmar.sim.randomize import Parts


@dataclass(frozen=True)
class Contact:
    """Contact values of a hand.  None keeps what the scene has."""

    tip: float
    """Sliding coefficient of the fingertips [-]."""
    link: float
    """Sliding coefficient of the hand's other geoms [-]."""
    solref: tuple[float, float] | None = None
    """Time constant [s] and damping ratio; MuJoCo uses two physics steps where it is shorter."""
    solimp: tuple[float, float, float, float, float] | None = None
    cone: str | None = None
    """``elliptic`` or ``pyramidal``."""
    impratio: float | None = None
    """Stiffness of friction over that of the normal direction."""
    iterations: tuple[int, int] | None = None
    """Most steps of the solver, and of its line search: at an ``impratio`` of 100 ten are not enough."""

    def __post_init__(self) -> None:
        if not 0 < self.link <= self.tip:
            raise ConfigError(f"need 0 < link <= tip, got link {self.link}, tip {self.tip}")
        if self.cone not in (None, "elliptic", "pyramidal"):
            raise ConfigError(f"cone is {self.cone!r}, accepted 'elliptic', 'pyramidal' or None")


LEAP_MENAGERIE = Contact(
    tip=0.5, link=0.2, solref=(0.0001, 1.0), solimp=(0.999, 0.999, 0.001, 0.0001, 1.0), cone="elliptic", impratio=100.0,
    iterations=(100, 50),
)  # fmt: skip
"""``leap_hand/right_hand.xml`` of MuJoCo Menagerie, commit 71f066ad0be9; iterations are MuJoCo's own."""


def impose(model: mujoco.MjModel, contact: Contact, *, parts: Parts, tips: tuple[str, ...]) -> mujoco.MjModel:
    """``model``, changed: the hand, and the objects so that the hand's values decide every contact of the two.

    MuJoCo takes the larger coefficient of a pair, so objects get the smallest of the hand's, and of two softnesses the
    mean, so objects get the hand's.  On the table the table's own coefficient goes on to decide.

    Args:
        model: A composed scene.
        contact: The values.
        parts: Whose is what.
        tips: Names of the fingertips' geoms.
    """
    both = np.concatenate([parts.hand_geoms, parts.object_geoms])
    model.geom_friction[both, 0] = contact.link
    model.geom_friction[[model.geom(name).id for name in tips], 0] = contact.tip
    if contact.solref is not None:
        model.geom_solref[both] = contact.solref
    if contact.solimp is not None:
        model.geom_solimp[both] = contact.solimp
    if contact.cone is not None:
        model.opt.cone = getattr(mujoco.mjtCone, f"mjCONE_{contact.cone.upper()}")
    if contact.impratio is not None:
        model.opt.impratio = contact.impratio
    if contact.iterations is not None:
        model.opt.iterations, model.opt.ls_iterations = contact.iterations
    return model
