"""Fingers around an object: joints that meet something stiff, so that a goal beyond it is a grip."""

from __future__ import annotations

import numpy as np

from palmar.real_robot.fakes.plant import ServoPlant


class Grasp(ServoPlant):
    """Joints of a hand; those with a finite ``wall`` [rad] cannot close farther, and press on it instead."""

    STIFFNESS = 60.0
    """Of the object [N m/rad]."""

    def __init__(self, q, wall, **keys):
        super().__init__(np.array(q, dtype=float), **keys)
        self.wall = np.asarray(wall, dtype=float)

    @property
    def load(self):
        """Torque of the object on the joints [N m]."""
        return -self.grip_now() if hasattr(self, "wall") else np.zeros(self.n)

    @load.setter
    def load(self, value):
        """It comes from the wall."""

    def grip_now(self):
        return self.STIFFNESS * np.maximum(self._q - self.wall, 0.0)

    def grip(self):
        """How hard each joint presses on the object [N m], (n,)."""
        self.measure()
        return self.grip_now()
