"""A person's arm at the table: how it moves, how far away it is, and what a tracker says of it.

The arm is two capsules, hand and forearm, on one line from the fingertips towards the shoulder.  It moves by script
and collides with nothing: touching it is a distance of zero, never a force.  World frame, SI units.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import mujoco
import numpy as np
from numba import njit

from palmar.safety.boxes import TOUCHING
from palmar.safety.distances import segment_segment
from palmar.safety.geometry import Kinematics
from palmar.safety.obstacles import nothing, with_people
from palmar.safety.robot import RobotModel
from palmar.safety.sight import NEAREST_PERSON, TOWARDS_PERSON, answer_of, measure_space, sight_of
from palmar.safety.types import ConfigError, People
from palmar.sim.poses import THREADS, angles, chain_of, outline, place, shared

Array = np.ndarray

PERSON = "person_"
"""Scripted bodies whose name begins so are people; each has one capsule along its z axis."""
RADIUS, HALF = (0.045, 0.050), (0.05, 0.13)
"""Of hand and forearm: radius, and half length of the axis [m]."""
ALONG = (0.05, 0.23)
"""Their centres behind the fingertips' end of the line [m]."""
LENGTH = 0.36
"""From that end to the elbow [m]."""


def add_arm(spec: mujoco.MjSpec) -> None:
    """Add hand and forearm as scripted bodies that touch nothing."""
    for name, radius, half in zip(("hand", "forearm"), RADIUS, HALF, strict=True):
        body = spec.worldbody.add_body(name=PERSON + name, mocap=True)
        geom = body.add_geom(name=PERSON + name, type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[radius, half, 0])
        geom.contype = geom.conaffinity = 0
        geom.rgba = [0.85, 0.65, 0.52, 1.0] if name == "hand" else [0.25, 0.40, 0.60, 1.0]


def poses(tip: Array, shoulder: Array) -> Array:
    """Poses (..., 2, 7) of hand and forearm: fingertips at tip (..., 3), pointing away from the shoulder (..., 3)."""
    back = shoulder - tip
    back = back / np.linalg.norm(back, axis=-1, keepdims=True)
    out = np.empty((*back.shape[:-1], 2, 7))
    out[..., :3] = tip[..., None, :] + np.array(ALONG)[:, None] * back[..., None, :]
    # the half-angle turn from z to ``back``
    quat = np.stack([1 + back[..., 2], -back[..., 1], back[..., 0], 0 * back[..., 0]], -1)
    out[..., 3:] = (quat / np.maximum(np.linalg.norm(quat, axis=-1, keepdims=True), 1e-9))[..., None, :]
    return out


def glide(t: Array, times: Array, points: Array) -> Array:
    """Position at times t (S, B) [s] on ways through points (B, W, 3) reached at times (B, W): from rest to rest.

    Between two points the speed is 1.5 times the mean in the middle and zero at the ends.
    """
    i = np.clip((t[..., None] >= times).sum(-1) - 1, 0, times.shape[1] - 2)
    b = np.arange(len(times))
    t0, t1 = times[b, i], times[b, i + 1]
    s = np.clip((t - t0) / np.maximum(t1 - t0, 1e-9), 0, 1)
    s = (s * s * (3 - 2 * s))[..., None]
    return points[b, i] + s * (points[b, i + 1] - points[b, i])


def geoms(model: mujoco.MjModel) -> Array:
    """Capsules of people, in the order of the scripted bodies (c,); empty where there are none."""
    found = [g for g in range(model.ngeom) if model.body(int(model.geom_bodyid[g])).name.startswith(PERSON)]
    return np.array(sorted(found, key=lambda g: model.body_mocapid[model.geom_bodyid[g]]), dtype=int)


class Near:
    """How far people are and how fast the robot comes nearer: training's side of what the filter measures.

    Args:
        robot: Its moving geoms are looked at, as by ``safety.sight``.
        model: The scene, with people.
    """

    def __init__(self, robot: RobotModel, model: mujoco.MjModel):
        self.kinematics = Kinematics.from_model(robot)
        self._chain = chain_of(self.kinematics) if self.kinematics.plain else None
        self._pool = ThreadPoolExecutor(THREADS)
        capsules = geoms(model)
        self._mocap = model.body_mocapid[model.geom_bodyid[capsules]]
        self._half, self._radius = model.geom_size[capsules, 1].copy(), model.geom_size[capsules, 0].copy()

    def over(self, q: Array, qd: Array, mocap: Array, dt: float) -> tuple[Array, Array]:
        """Distance to the nearest person [m] and approach speed [m/s] after each of S steps, (S, B) each.

        Speeds are differences of two poses: a mean over one step.  A robot whose geoms are not capsules is looked at
        through positions and velocities instead, sample by sample.

        Args:
            q: Joint positions before the first step and after each [rad], (S + 1, B, n).
            qd: Velocities after each [rad/s], (S, B, n).
            mocap: Poses of scripted bodies after each step, (S, B, c, 7).
            dt: Physics step [s].
        """
        if self._chain is None:
            return self.at(q[1:], qd, mocap)
        chain, ends, moving = self._chain, self.ends(mocap), self.kinematics.tree.moving[::-1].copy()
        clear, towards = np.empty(ends.shape[:2]), np.empty(ends.shape[:2])

        def work(first: int, last: int) -> None:
            _near(chain, moving, q, ends, self._radius, dt, first, last, clear, towards)

        shared(self._pool, q.shape[1], work)
        return clear, towards

    def at(self, q: Array, qd: Array, mocap: Array) -> tuple[Array, Array]:
        """The same from joints, by the filter's routine: (*B, n), (*B, n), (*B, c, 7)."""
        ends, lead = self.ends(mocap).reshape(-1, len(self._radius), 2, 3), q.shape[:-1]
        still = np.zeros((len(self._radius), 3))
        rows = [
            by_joints(self.kinematics, People(e, self._radius, still, 0.0), a, b)
            for e, a, b in zip(ends, q.reshape(-1, q.shape[-1]), qd.reshape(-1, q.shape[-1]), strict=True)
        ]
        clear, towards = np.array(rows).T.reshape(2, *lead)
        return clear, towards

    def ends(self, mocap: Array) -> Array:
        """Ends of the people's capsules (*B, h, 2, 3) [m] of poses of scripted bodies (*B, c, 7)."""
        p, (w, x, y, z) = mocap[..., self._mocap, :3], np.moveaxis(mocap[..., self._mocap, 3:], -1, 0)
        axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)
        reach = self._half[:, None] * axis
        return np.stack([p - reach, p + reach], -2)


@njit(cache=True, nogil=True, error_model="numpy")
def _near(chain, geoms, q, ends, person_radius, dt, first, last, clear, towards):
    """``Near.over`` of worlds ``first`` to ``last``; of the ``geoms`` the fast ones come first, or it takes longer."""
    n, g, h = len(chain.parent), len(chain.link), ends.shape[2]
    r, p, links, cos, sin = np.empty((n, 3, 3)), np.empty((n, 3)), np.arange(n), np.empty(n), np.empty(n)
    centre, half, old, old_half = np.empty((g, 3)), np.empty((g, 3)), np.empty((g, 3)), np.empty((g, 3))
    for w in range(first, last):
        for s in range(len(q)):
            old[:], old_half[:] = centre, half
            angles(chain, q[s, w], cos, sin)
            place(chain, links, n, cos, sin, r, p)
            outline(chain, geoms, len(geoms), r, p, centre, half)
            if s == 0:
                continue
            best, fast = np.inf, 0.0
            for m in range(len(geoms)):
                k = geoms[m]
                a0, a1, a2 = half[k, 0], half[k, 1], half[k, 2]
                v0, v1, v2 = centre[k, 0] - old[k, 0], centre[k, 1] - old[k, 1], centre[k, 2] - old[k, 2]
                u0, u1, u2 = a0 - old_half[k, 0], a1 - old_half[k, 1], a2 - old_half[k, 2]
                most = math.sqrt(v0 * v0 + v1 * v1 + v2 * v2) + math.sqrt(u0 * u0 + u1 * u1 + u2 * u2)
                long = math.sqrt(a0 * a0 + a1 * a1 + a2 * a2)
                for i in range(h):
                    e, f = ends[s - 1, w, i, 0], ends[s - 1, w, i, 1]
                    l0, l1, l2 = 0.5 * (f[0] - e[0]), 0.5 * (f[1] - e[1]), 0.5 * (f[2] - e[2])
                    x, y, z = centre[k, 0] - e[0] - l0, centre[k, 1] - e[1] - l1, centre[k, 2] - e[2] - l2
                    away = math.sqrt(x * x + y * y + z * z) - long - math.sqrt(l0 * l0 + l1 * l1 + l2 * l2)
                    if most <= fast * dt and away - person_radius[i] - chain.radius[k] >= best:
                        continue
                    square, a, b = segment_segment(x, y, z, a0, a1, a2, l0, l1, l2)
                    d = math.sqrt(square)
                    best = min(best, d - person_radius[i] - chain.radius[k])
                    c0, c1, c2 = v0 + a * u0, v1 + a * u1, v2 + a * u2
                    if d > TOUCHING:
                        x, y, z = x + a * a0 - b * l0, y + a * a1 - b * l1, z + a * a2 - b * l2
                        fast = max(fast, -(x * c0 + y * c1 + z * c2) / (d * dt))
                    else:
                        fast = max(fast, math.sqrt(c0 * c0 + c1 * c1 + c2 * c2) / dt)
            clear[s - 1, w], towards[s - 1, w] = max(0.0, best), fast


def by_joints(kinematics: Kinematics, people: People | None, q: Array, qd: Array) -> tuple[float, float]:
    """The filter's own answer at (q, qd), (n,) each: distance [m] and approach speed [m/s]; None is a lost tracker."""
    out, obstacles = answer_of(), with_people(nothing(), people)
    measure_space(
        kinematics.tree, obstacles, np.ascontiguousarray(q), np.ascontiguousarray(qd), sight_of(kinematics.tree), out
    )
    return float(out[NEAREST_PERSON]), float(out[TOWARDS_PERSON])


@dataclass(frozen=True)
class PeopleTrackerConfig:
    """How well a person's arm is seen."""

    rate: float = 30.0
    """Frames per second [Hz]; at most one per control step."""
    noise: float = 0.01
    """Standard deviation of each coordinate of either end of the arm [m]."""
    delay: float = 0.05
    """From exposure to delivery [s]."""
    dropout: float = 0.05
    """Probability that a frame is lost."""
    timeout: float = 0.30
    """Without a frame for longer, the tracker is lost, and a person presumed present [s]."""

    def __post_init__(self) -> None:
        if not (self.rate > 0 and min(self.noise, self.delay) >= 0 and 0 <= self.dropout < 1 and self.timeout > 0):
            raise ConfigError(f"need rate, timeout > 0, noise, delay >= 0, 0 <= dropout < 1, got {self}")
        if self.delay * self.rate > 8:
            raise ConfigError(f"delay {self.delay} s holds more than 8 frames of {self.rate} Hz")


class PeopleTracker:
    """The arms of people in B worlds as a tracker reports them: fingertips' end and elbow, and how old that is."""

    def __init__(self, config: PeopleTrackerConfig, *, batch: int, seed: int):
        self.config, self._rng = config, np.random.default_rng(seed)
        self._next, self._last = np.zeros(batch), np.full(batch, -1.0)
        slots = int(np.ceil(config.delay * config.rate)) + 1
        self._due, self._frame = np.full((slots, batch), np.inf), np.zeros((slots, batch, 2, 3))
        self.ends = np.zeros((batch, 2, 3))
        """Last delivered ends [m], (B, 2, 3)."""
        self.velocity = np.zeros((batch, 3))
        """Of the arm, smoothed over three frames [m/s], (B, 3)."""
        self.received = np.full(batch, -np.inf)
        """When it was delivered, episode time [s], (B,); -inf where nothing was yet."""

    def reset(self, ids: Array) -> None:
        """Forget everything of worlds ``ids`` (k,), whose time starts at 0."""
        self._due[:, ids], self._last[ids] = np.inf, -1.0
        self._next[ids] = self._rng.uniform(0, 1 / self.config.rate, len(ids))
        self.received[ids], self.velocity[ids] = -np.inf, 0.0

    def update(self, t: Array, ends: Array, seen: Array) -> None:
        """Expose and deliver what is due at times t (B,); a second call at the same time does nothing.

        Args:
            t: Episode time [s], (B,).
            ends: Where the arms are [m], (B, 2, 3).
            seen: Whether the cameras see them, (B,) bool.
        """
        c, fresh = self.config, t > self._last
        self._last = np.maximum(t, self._last)
        frame = np.flatnonzero(fresh & (t >= self._next))
        self._next[frame] += np.ceil((t[frame] - self._next[frame]) * c.rate + 1e-9) / c.rate
        kept = frame[(self._rng.random(len(frame)) >= c.dropout) & seen[frame]]
        slot = np.argmax(np.isinf(self._due[:, kept]), axis=0)
        self._due[slot, kept] = t[kept] + c.delay
        self._frame[slot, kept] = ends[kept] + c.noise * self._rng.standard_normal((len(kept), 2, 3))
        ready = self._due <= t + 1e-9
        world = np.flatnonzero(ready.any(axis=0))
        newest = np.argmax(np.where(ready, self._due, -np.inf), axis=0)[world]
        self._deliver(world, self._frame[newest, world], t[world])
        self._due[ready] = np.inf

    def _deliver(self, world: Array, ends: Array, t: Array) -> None:
        since = t - self.received[world]
        known = np.isfinite(since) & (since < self.config.timeout)
        moved = (ends - self.ends[world]).mean(1) / np.maximum(np.where(known, since, 1.0), 1e-3)[:, None]
        self.velocity[world] += np.where(known[:, None], (moved - self.velocity[world]) / 3, -self.velocity[world])
        self.ends[world], self.received[world] = ends, t
