"""A plant that moves by the tracking law of training and is looked at by a check."""

from dataclasses import replace

import numpy as np

from palmar.benchmarks.plant import Plant
from palmar.real_robot.config import TwinConfig
from palmar.safety.bounds import bounds_of
from palmar.safety.check import Check, CheckConfig
from palmar.safety.intention import intend, step

DT = 0.001
LEAP_COUNT, LEAP_SPEED = 2 * np.pi / 4096, 0.024
"""Resolution of the hand's encoders [rad] and speeds [rad/s]."""


class Bench:
    """A plant that follows the tracking law of training, looked at by a check; readings can be spoilt on the way."""

    def __init__(self, *, seed=0, config=None, latency=1, quantised=False, spoil=None):
        self.plant = Plant(seed=seed, config=TwinConfig(latency=latency))
        self.robot, self.rng, self.quantised = self.plant.robot, np.random.default_rng(seed), quantised
        self.check = Check(self.robot, config or CheckConfig(), DT)
        self.bounds, n = bounds_of(self.robot.limits, 0.0), self.robot.n
        self.u, self.ud, self.udd = self.plant.q.copy(), np.zeros(n), np.zeros(n)
        self.goal, self.x, self.spoil, self.k = self.u.copy(), np.zeros(n), spoil, 0
        self.first, self.squeezed, self.pushed = None, 0, 0.0
        self.check.start(self.read())

    def read(self):
        r = self.plant.read()
        if self.quantised:
            q, qd = r.q.copy(), r.qd.copy()
            q[7:] = np.round(q[7:] / LEAP_COUNT) * LEAP_COUNT
            qd[7:] = np.round(qd[7:] / LEAP_SPEED) * LEAP_SPEED
            r = replace(r, q=q, qd=qd)
        return r

    def tick(self):
        r = self.read()
        if self.spoil is not None:
            r = self.spoil(self, r)
        event = self.check.reading(r, self.plant.now, self.u, self.ud)
        if event is not None and self.first is None:
            self.first = self.k
        intend(self.u, self.ud, self.udd, self.goal, 0.0 * self.goal, self.bounds, DT, self.x)
        u, ud = np.empty_like(self.u), np.empty_like(self.u)
        step(self.u, self.ud, self.x, DT, u, ud)
        self.u, self.ud, self.udd = u, ud, self.x.copy()
        self.plant.step(u)
        self.k += 1
        return event

    def go(self, ticks, joints=(), by=0.5):
        """First event of a motion of some joints."""
        for j in joints:
            self.goal[j] += by if self.goal[j] + by < self.robot.limits.q_max[j] else -by
        for _ in range(ticks):
            if (event := self.tick()) is not None:
                return event
        return None
