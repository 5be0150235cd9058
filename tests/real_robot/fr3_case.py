"""The FR3 driver, through the real libfranka, against the fake arm in a process of its own: contract cases and rig."""

import itertools
import os
import time
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import pytest
from driver_cases import Case, as_a_device

from palmar.real_robot.drivers.fr3 import open_driver
from palmar.real_robot.drivers.fr3_config import Fr3Config
from palmar.real_robot.fakes.fci_motion import DT
from palmar.real_robot.fakes.fci_process import FciProcess
from palmar.safety.types import Command

JOINTS = tuple(f"fr3_joint{i}" for i in range(1, 8))
PATIENCE = 0.05
"""A busy machine is no bad network; a robot's is 1 ms."""
TIMEOUT = 0.6
PRIORITY = 20
"""Of the fake, above the driver's, where real-time priority is allowed."""
missing = "" if find_spec("pylibfranka") else "needs pylibfranka: pip install -e '.[franka]'"
needs_libfranka = pytest.mark.skipif(bool(missing), reason=missing or "pylibfranka is here")
_numbers = itertools.count(2)


def address():
    """A loopback address of this process's own: the port is always 1337."""
    return f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.{next(_numbers)}"


class Controls:
    def __init__(self, fake):
        self.fake = fake
        self.cut = lambda: fake.do("cut")
        self.restore = lambda: fake.do("restore")
        self.raise_fault = lambda name: fake.do("raise_fault", name)
        self.reset = lambda: fake.do("reset")

    def position(self):
        return np.array(self.fake.report()["q"])

    def holding(self):
        """Its own controller or its brakes hold it in every mode; what shows is that it stands by its set-point."""
        r = self.fake.report()
        return bool(np.abs(np.subtract(r["q"], r["q_d"])).max() < 0.02)

    def received(self):
        return self.fake.report()["received"]


@contextmanager
def rig(**options):
    """(driver, fake) at rest."""
    with as_a_device(children=False), FciProcess(address(), patience=PATIENCE, priority=PRIORITY, **options) as fake:
        driver = open_driver(Fr3Config(address=fake.address, timeout=TIMEOUT), JOINTS)
        try:
            yield driver, fake
        finally:
            driver.close()


class Arm:
    """Drives a robot tick by tick."""

    def __init__(self, driver, fake):
        self.driver, self.fake, self.seq = driver, fake, 0
        self.state = driver.read()
        self.q = self.state.q.copy()

    def tick(self, q=None, seq=None):
        self.q = self.q if q is None else np.array(q)
        self.seq = self.seq + 1 if seq is None else seq
        self.driver.write(Command(q=self.q, seq=self.seq, stamp=0.0))
        self.state = self.driver.read()

    def swing(self, ticks=200, speed=0.5, joint=1):
        """Up to ``speed`` [rad/s] in 100 ms, and on."""
        for k in range(ticks):
            self.q[joint] += DT * speed * min(1.0, k / 100)
            self.tick()


def stands(fake):
    before = np.array(fake.report()["q"])
    time.sleep(0.05)
    return np.abs(np.array(fake.report()["q"]) - before).max() < 1e-4


def stopped(fake):
    """Wait until its own stop is over; what it reports then."""
    end = time.monotonic() + 10.0
    while fake.report()["braking_s"] is None and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    return fake.report()


@contextmanager
def make(folder):
    with rig() as (driver, fake):
        yield driver, Controls(fake)


def cases():
    return [] if missing else [fr3()]


def fr3():
    return Case(
        name="fr3",
        make=make,
        rate=1000.0,
        faults=("joint_reflex", "cartesian_reflex", "user_stopped"),
        cut_within=TIMEOUT + 0.1,
        watchdog=20 * PATIENCE + 0.5,
        reach=0.05,
    )
