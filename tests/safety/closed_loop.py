"""A filter in a loop with a robot that does what it is told, and a clock that is turned by hand."""

import numpy as np

from palmar.benchmarks.filter import DT, Reading
from palmar.safety.filter import Filter
from palmar.safety.types import Chunk, State


class Run:
    """A filter with a fake clock and a perfect robot."""

    def __init__(self, robot, constraints, **options):
        self.robot, self.now, self.seq, self.zero = robot, 10.0, 0, np.zeros(robot.n)
        self.filter = Filter(robot, constraints, **options)
        self.filter.start(Reading(self.now, 0, robot.home, self.zero, self.zero))
        self.offset, self.rate = self.zero.copy(), self.zero.copy()
        self.sent = []

    def offer(self, q, *, after=0.3):
        self.seq += 1
        q = np.asarray(q, dtype=float)[None]
        self.filter.offer(Chunk(q=q, t=np.array([self.now + after]), seq=self.seq, received=self.now))

    def tick(self, *, dt=DT, reading=None):
        self.now += dt
        f = self.filter
        reading = reading or Reading(self.now, f.seq + 2, f.u + self.offset, f.ud + self.rate, self.zero)
        command, verdict = f.tick(reading, self.now)
        self.sent.append(command.q)
        return verdict

    def push(self, joint, rate):
        """From here on a joint is pushed away from its command at this speed [rad/s]."""
        self.rate[joint] = rate
        self.offset[joint] += rate * DT

    def go(self, ticks, q=None):
        for k in range(ticks):
            if q is not None and k % 50 == 0:
                self.offer(q, after=0.05)
            verdict = self.tick()
        return verdict


def moving(run):
    q = run.robot.home.copy()
    q[0] += 1.0
    assert run.go(150, q).state is State.RUN
    assert abs(run.filter.ud[0]) > 0.5
    return q
