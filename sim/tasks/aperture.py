"""How wide the hand opens: the widest box that thumb and a finger get around, by search.

A posture counts if both tips are against opposite faces of a box that lies on the table, at least 1 cm under its top,
and no other link is inside the box, the table, the hand itself or beyond the end of a joint.  Forces are not asked
for, so this is generous.  Least squares with random restarts, as in ``grasp_search``: a posture found is proof, none
found in many tries is evidence.  Run ``python -m palmar.sim.tasks.aperture`` to repeat it.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from palmar.safety.robot import RobotModel
from palmar.sim.robots import load_robot
from palmar.sim.tasks.grasp_search import Pinch

Array = np.ndarray
UNDER_TOP = 0.010
"""Tips touch at least this far under the top of the box [m]."""
FOUND = 0.05
"""Least squares below this mean that nothing is off by more than 0.3 mm."""
LENGTH = 0.10
"""Half length of the box across the grasp [m]."""


def residuals(pinch: Pinch, finger: int, pose: Array, q: Array, *, width: float, height: float) -> Array:
    """What is wrong with a posture, about 1 per millimetre."""
    at, axis = pinch.place(pose, q)
    size, tips = pinch.model.geom_size, pinch.tips[[finger, 3]]
    reach = width / 2 + pinch.radius
    touch = (at[tips, 0] - [reach, -reach]) / 0.001
    below = np.maximum(at[tips, 2] - (height / 2 - UNDER_TOP), 0) / 0.001
    opposed = (at[tips[0], 1:2] - at[tips[1], 1:2]) / 0.003
    beside = np.maximum(np.abs(at[tips, 1]) - (LENGTH - 0.01), 0) / 0.001
    own = np.minimum(pinch.clearances(), 0) / 0.0005
    moving = np.concatenate([pinch.hand_geoms, pinch.wrist])
    lowest = at[moving, 2] - np.abs(axis[moving, 2]) * size[moving, 1] - size[moving, 0]
    table = np.minimum(lowest + height / 2 - 0.002, 0) / 0.0005
    others = np.setdiff1d(pinch.hand_geoms, tips)
    along = (size[others, 1:2] * np.linspace(-1, 1, 5))[..., None]
    outside = np.abs(at[others][:, None] + axis[others][:, None] * along) - [width / 2, LENGTH, height / 2]
    gap = (np.linalg.norm(np.maximum(outside, 0), axis=-1) + np.minimum(outside.max(-1), 0)).min(1) - size[others, 0]
    ends = np.concatenate([np.minimum(q - pinch.low, 0), np.minimum(pinch.high - q, 0)]) / 0.01
    return np.concatenate([touch, below, opposed, beside, own, table, np.minimum(gap, 0) / 0.001, ends])


def gets_around(robot: RobotModel, width: float, *, height: float, tries: int, seed: int = 0) -> bool:
    """Whether a posture around a box was found in that many tries per finger; sizes in metres."""
    pinch, rng = Pinch(robot), np.random.default_rng(seed)
    for _ in range(tries):
        for finger in range(3):
            # SciPy renames this argument to rng in a decorator and accepts both; rng would draw other rotations.
            turn = Rotation.random(random_state=int(rng.integers(1 << 31)))  # pyright: ignore[reportCallIssue]
            x0 = np.concatenate([turn.as_rotvec(), [0, 0, 0.12], rng.uniform(pinch.low, pinch.high)])
            fit = least_squares(
                lambda x, f=finger: residuals(pinch, f, x[:6], x[6:], width=width, height=height), x0, max_nfev=60
            )
            if fit.cost < FOUND:
                return True
    return False


def main() -> None:
    """Print for which widths a posture was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=float, default=0.05, help="of the box [m]")
    parser.add_argument("--widths", type=float, nargs="+", default=[0.16, 0.18, 0.19, 0.20, 0.205])
    parser.add_argument("--tries", type=int, default=40)
    args = parser.parse_args()
    robot = load_robot()
    for width in args.widths:
        print(width, gets_around(robot, width, height=args.height, tries=args.tries), flush=True)


if __name__ == "__main__":
    main()
