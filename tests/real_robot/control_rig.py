"""A control process under test: as real processes, and as its loop alone on a clock of its own."""

import logging
import os
import time
from pathlib import Path

import numpy as np
import toy_robot as toy

from palmar.real_robot import shared
from palmar.real_robot.control import open_memory
from palmar.real_robot.control_loop import Control
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.inbox import Inbox
from palmar.real_robot.layout import LAYOUTS, STATES
from palmar.real_robot.tally import Tally
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.types import State
from palmar.sim.interface import RobotState


class Bridge:
    """The bridge's end of a control process's memory: what it writes, and what it sees."""

    blocks: dict
    seq = 0

    def clock(self):
        return time.monotonic()

    def send(self, q, due=None, **changes):
        now = self.clock()
        self.seq += 1
        c = self.blocks["chunk"].record
        for name, value in {"seq": self.seq, "received": now, "sent": now, "count": 1, **changes}.items():
            c[name] = value
        c["t"][0], c["q"][0] = now + 0.1 if due is None else due, q
        self.blocks["chunk"].write()

    def ask(self, **values):
        r = self.blocks["request"].record
        r["pid"] = os.getpid()
        for name, value in values.items():
            r[name] = value
        self.blocks["request"].write()

    def press(self, what):
        """Once more."""
        self.ask(**{what: int(self.blocks["request"].record[what]) + 1})

    def policy_is(self, pid):
        self.blocks["policy"].record["pid"] = pid
        self.blocks["policy"].write()

    def state(self):
        return self.blocks["state"].read()

    def filter_state(self):
        s = self.state()
        return STATES[int(s["state"])], s["reason"].decode()


class Rig(Bridge):
    """A control process and its hardware, by default the twin, as processes; the bridge's end in this one."""

    def __init__(self, folder, stack, run=None):
        self.run = run or toy.run_config(folder)
        if self.run.hardware == "twin":
            self.twin = stack.enter_context(toy.process("twin", self.run))
        self.control = stack.enter_context(toy.process("control", self.run))
        self.attach()
        if self.run.hardware == "twin":
            self.wire = shared.attach(Path(self.run.twin_memory), LAYOUTS, kind="twin")

    def attach(self):
        path = Path(self.run.control_memory)
        self.map = shared.wait_attach(path, LAYOUTS, kind="control", robot=None, timeout=120)
        self.blocks = self.map.blocks
        toy.until(lambda: self.state() is not None, 60, "control ready")

    def keep_running(self, seconds, q):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(q)
            time.sleep(0.05)

    def run_until(self, q, condition, what):
        """Send chunks until it is so; a robot that a busy machine latched meanwhile is reset, as an operator would."""

        def so():
            if self.filter_state()[0] is State.LATCHED:
                self.press("reset")
            self.send(q)
            time.sleep(0.03)
            return condition()

        return toy.until(so, 30.0, what)

    def run_until_moving(self, q):
        self.run_until(q, lambda: self.filter_state()[0] is State.RUN, "RUN")

    def run_until_at(self, q):
        at = lambda: self.filter_state()[0] is State.RUN and np.abs(self.state()["q"] - q).max() < 0.02  # noqa: E731
        self.run_until(q, at, f"RUN at {q}")


class Ideal:
    """A robot that is where it was told to be, on the bench's clock."""

    def __init__(self, bench):
        self.bench, self.joints, self.fault, self.gone, self.said = bench, toy.robot().joints, "", False, []
        self.q, self.qd, self._seq = toy.HOME.copy(), np.zeros(2), 0

    def read(self):
        if self.gone:
            raise DriverError("gone")
        self._seq += 1
        noise = 1e-6 * (self._seq % 2)  # a reading that repeats to the last bit counts as frozen
        return RobotState(self.bench.now, self._seq, self.q + noise, self.qd, np.zeros(2))

    def write(self, command):
        if self.fault:
            raise DriverError(self.fault)
        self.q, self.qd = command.q, (command.q - self.q) / self.bench.run.period

    def stop(self, reason):
        self.said.append(f"stop {reason}")

    def recover(self):
        self.said.append("recover")
        self.fault = ""

    def close(self):
        self.said.append("close")


class Bench(Bridge):
    """The loop of a control process without the process: every period by hand, over an ideal robot."""

    def __init__(self, folder, **changes):
        self.run, self.now, self.driver = toy.run_config(folder, **changes), time.monotonic(), Ideal(self)
        robot = self.run.robot_model()
        constraints = self.run.constraint_set(robot)
        self.map = open_memory(self.run, robot, constraints)
        self.blocks = self.map.blocks
        filter_ = Filter(robot, constraints, FilterConfig(dt=self.run.period))
        self.tally, log = Tally(self.map, filter_, self.run.period), logging.getLogger("control")
        self.control = Control(self.run, self.driver, filter_, Inbox(self.blocks), self.tally, log)
        assert self.control.start()
        self.tick()

    def clock(self):
        return self.now

    def tick(self, seconds=0.001):
        """So many periods; state and reason after them."""
        for _ in range(round(seconds / self.run.period)):
            self.now += self.run.period
            self.control.tick(self.now, 0, 0.0)
        return self.filter_state()

    def follow(self, q, seconds=0.1):
        """The same with a policy of 20 Hz that wants to be at q."""
        for _ in range(round(seconds / 0.05)):
            self.send(q)
            told = self.tick(0.05)
        return told
