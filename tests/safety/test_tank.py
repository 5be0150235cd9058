"""The law of the tanks on the twin's model, energies from MuJoCo: E_kin + E_spring + T never exceeds its start
plus the work from outside.  And the floor, where the rows are heeded."""

from collections import deque
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from palmar.safety.bounds import bounds_of
from palmar.safety.constraints import parse
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.geometry import Kinematics
from palmar.safety.intention import intend, step
from palmar.safety.ledger import LEFT
from palmar.safety.stop import stop_law
from palmar.safety.tank import ARM, HAND, Tank, servo_of
from palmar.safety.types import Chunk, ConfigError, People
from palmar.sim import robots, scene
from palmar.sim.interface import RobotState

DT = 0.001
TOLERANCE = 0.5
"""Declared before anything was measured [J]: what MuJoCo's integration and contacts may do."""
ROBOT = robots.load_robot("fr3_leap")
KIN = Kinematics.from_model(ROBOT)
BOUNDS = bounds_of(ROBOT.limits, 0.0)
N = ROBOT.n
ARM_JOINTS = np.arange(N) < ROBOT.n_arm
Q_NOISE, QD_NOISE, Q_STEP = 2e-5, 2e-3, 1e-6
"""The twin's declared sensors."""


class World:
    """The twin's physics with delayed commands and delayed, noisy, quantised readings; it counts energies itself."""

    def __init__(self, rng, *, latency=1, delay=1):
        self.model, _ = scene.compose([scene.Block("block", half_size=(0.03, 0.03, 0.05), mass=0.3)])
        self.model.opt.timestep = DT
        m, self.rng = self.model, rng
        self.data = mujoco.MjData(m)
        self.qpos = np.array([m.joint(j).qposadr[0] for j in ROBOT.joints])
        self.dof = np.array([m.joint(j).dofadr[0] for j in ROBOT.joints])
        self.act = np.array([m.actuator(j).id for j in ROBOT.joints])
        self.k, self.force = m.actuator_gainprm[self.act, 0].copy(), m.actuator_forcerange[self.act, 1]
        self.data.qpos[self.qpos] = self.data.ctrl[self.act] = self.u = ROBOT.home.copy()
        mujoco.mj_forward(m, self.data)
        self.readings, self.commands = deque(maxlen=latency + 1), deque(maxlen=delay + 1)
        self.steps, self.work, self.contacts = 0, 0.0, 0
        self._sense(-1)

    def _sense(self, number):
        d = self.data
        self.readings.append(
            (self.steps * DT, number, d.qpos[self.qpos], d.qvel[self.dof], d.qfrc_actuator[self.dof].copy())
        )

    def read(self):
        t, number, q, qd, tau = self.readings[0]
        q = np.round((q + Q_NOISE * self.rng.standard_normal(N)) / Q_STEP) * Q_STEP
        return t, number, q, qd + QD_NOISE * self.rng.standard_normal(N), tau

    def step(self, u, k, d, push):
        """A millisecond under the command that has arrived by now, and a push [N m]."""
        m, data = self.model, self.data
        self.commands.append((u, k, d))
        self.u, k, d = self.commands[0]
        if k is not None:
            self.k = k
            m.actuator_gainprm[self.act, 0], m.actuator_biasprm[self.act, 1:3] = k, np.stack([-k, -d], axis=-1)
        data.ctrl[self.act], data.qfrc_applied[self.dof] = self.u, push
        mujoco.mj_forward(m, data)
        self._sense(self.steps)
        before = data.qvel.copy()
        mujoco.mj_step(m, data)
        self.steps += 1
        self.work += DT * data.qfrc_applied @ (before + data.qvel) / 2
        self.contacts += data.ncon > 4  # the block alone has four

    def energy(self):
        """Kinetic, of the servos' springs, and of the block's height [J]."""
        m, data = self.model, self.data
        mujoco.mj_energyVel(m, data)
        e = np.abs(self.u - data.qpos[self.qpos])
        inside = np.minimum(e, self.force / self.k)
        block = m.body("block").id
        height = 9.81 * m.body_mass[block] * data.xipos[block, 2]
        return data.energy[1] + (self.k * inside * (e - 0.5 * inside)).sum() + height


def arm_and_hand(arm, hand):
    return np.where(ARM_JOINTS, arm, hand)


class Trial:
    """A run: what was too much at its worst [J], and the lowest levels."""

    def __init__(self, seed, *, impedance, behaviour="random", enforce=False, metered=True, configs=(ARM, HAND),
                 seconds=1.0, delay=1):  # fmt: skip
        self.rng, self.impedance, self.behaviour, self.enforce = (
            np.random.default_rng(seed),
            impedance,
            behaviour,
            enforce,
        )
        configs = tuple(replace(c, delay=delay * DT) for c in configs)
        self.world = World(self.rng, delay=delay)
        self.tank = Tank(KIN, BOUNDS, servo_of(KIN), arm=ROBOT.n_arm, dt=DT, configs=configs)
        self.u, self.v, self.a = ROBOT.home.copy(), np.zeros(N), np.zeros(N)
        self.target, self.push, self.wanted = self.u.copy(), np.zeros(N), self.world.k.copy()
        w = self.world
        self.tank.start(-1, self.u, self.u, w.readings[0][4])
        self.start = w.energy()
        self.excess, self.gained, self.lowest = -np.inf, -np.inf, np.full(2, np.inf)
        self.highest = np.full(2, -np.inf)
        self.full = sum(c.initial for c in configs)
        for i in range(round(seconds / DT)):
            self.tick(i, metered)

    def tick(self, i, metered):
        """One tick: the law before it, a command, a step."""
        w, reading = self.world, self.world.read()
        self.behave(i, reading)
        wanted = self.wanted if self.impedance else None
        seen = reading[0], reading[1], *reading[2:]
        levels = self.tank.meter(i * DT, seen, self.v, self.a, wanted if metered else None)
        gained = w.energy() - self.start - w.work
        self.gained, self.excess = max(self.gained, gained), max(self.excess, gained + levels.sum() - self.full)
        self.lowest, self.highest = np.minimum(self.lowest, levels), np.maximum(self.highest, levels)
        x, stopping = np.empty(N), np.empty(N)
        intend(self.u, self.v, self.a, self.target, np.zeros(N), BOUNDS, DT, x)
        if self.enforce:
            stop_law(self.v, self.a, BOUNDS, DT, stopping)
            row, _, upper = self.tank.rows
            part = next((p for p in 0.8 ** np.arange(20) if np.all(row @ (stopping + p * (x - stopping)) <= upper)), 0)
            x = stopping + part * (x - stopping)
        k = None
        if self.impedance:
            k = self.tank.granted(x, wanted) if self.enforce else wanted
        u, v = np.empty(N), np.empty(N)
        step(self.u, self.v, x, DT, u, v)
        self.u, self.v, self.a = u, v, x
        self.tank.sent(i * DT, u, k if metered else arm_and_hand(50, 0.5))
        d = None if k is None else 1.4 * np.sqrt(k * arm_and_hand(0.5, 2e-3))
        d = arm_and_hand(0.1, 1e-3) if self.behaviour == "pump" else d
        w.step(u, k, d, self.push)

    def behave(self, i, reading):
        """New set-points, stiffness and pushes, random or as harmful as a glance at the robot allows."""
        rng, (low, high) = self.rng, (ROBOT.limits.q_min + 0.1, ROBOT.limits.q_max - 0.1)
        _, _, q, qd, _ = reading
        if i % 150 == 0:
            self.target = np.clip(self.u + rng.uniform(-1, 1, N), low, high)
            if rng.random() < 0.5:  # into the table and the block
                self.target[1], self.target[3] = self.u[1] + 0.8, self.u[3] + 0.3
            self.wanted = arm_and_hand(rng.uniform(50, 600, N), rng.uniform(0.5, 3, N))
            self.push = arm_and_hand(20, 0.2) * rng.uniform(-1, 1, N) * (rng.random() < 0.5)
        if self.behaviour == "swing":  # set-points always ahead of the joints' motion
            self.target = np.clip(q + 0.5 * np.sign(qd), low, high)
        if self.behaviour == "pump":  # stiff while the spring drives the joint, soft while the joint drives the spring
            drives = (self.u - q) * qd > 0
            self.wanted = np.where(drives, arm_and_hand(600, 3.0), arm_and_hand(50, 0.5))
            self.target, self.push = ROBOT.home, arm_and_hand(20, 0.2) * (i < 100)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("impedance", [False, True], ids=["position servos", "variable impedance"])
@pytest.mark.parametrize("behaviour", ["random", "swing"])
def test_kinetic_spring_and_tank_energy_never_exceed_their_start_plus_work_from_outside(seed, impedance, behaviour):
    trial = Trial(seed, impedance=impedance, behaviour=behaviour, delay=seed % 3)
    assert trial.excess <= TOLERANCE
    assert np.any(trial.lowest < [ARM.initial - 1.0, HAND.initial - 0.1])  # something did happen


def test_the_law_is_tried_in_contact():
    trials = [Trial(seed, impedance=True, seconds=1.5) for seed in range(3)]
    assert sum(t.world.contacts for t in trials) > 100
    assert max(t.excess for t in trials) <= TOLERANCE


def test_a_pump_by_stiffness_is_paid_for_and_shows_where_stiffness_is_not_metered():
    metered = Trial(0, impedance=True, behaviour="pump", seconds=2.0)
    blind = Trial(0, impedance=True, behaviour="pump", seconds=2.0, metered=False)
    assert metered.gained > 10.0  # joules from nowhere but the tank
    assert metered.excess <= TOLERANCE < 5.0 < blind.excess


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("impedance", [False, True], ids=["position servos", "variable impedance"])
def test_no_tank_goes_below_its_floor_where_the_rows_are_heeded(seed, impedance):
    small = replace(ARM, capacity=25.0, initial=25.0, floor=1.0), replace(HAND, capacity=3.0, initial=3.0, floor=0.2)
    free = Trial(seed, impedance=impedance, behaviour="swing", configs=small)
    heeded = Trial(seed, impedance=impedance, behaviour="swing", configs=small, enforce=True)
    assert np.all(heeded.lowest >= [1.0, 0.2])
    assert heeded.excess <= TOLERANCE
    assert free.lowest[0] < 1.0


def test_the_filter_with_tanks_keeps_the_law_and_their_floor():
    small = replace(ARM, capacity=8.0, initial=8.0), replace(HAND, capacity=2.0, initial=2.0)
    constraints = parse((Path(__file__).parents[2] / "configs/constraints/shared_cell.yaml").read_text(), ROBOT.limits)
    filter_ = Filter(ROBOT, constraints, FilterConfig(tanks=small))
    assert filter_.tank is not None
    rng, nobody = np.random.default_rng(0), (np.zeros((0, 2, 3)), np.zeros(0), np.zeros((0, 3)))
    w = World(rng, delay=0)
    filter_.start(RobotState(0.0, 0, ROBOT.home, np.zeros(N), w.readings[0][4]))
    start, excess, lowest, active = w.energy() + 10.0, -np.inf, np.full(2, np.inf), 0
    for i in range(600):
        now = i * DT
        if i % 100 == 0:
            q = np.clip(filter_.u + np.cumsum(rng.normal(size=(12, N)) * 0.08, axis=0), *filter_.bounds[:2])
            k = np.where(ARM_JOINTS, rng.uniform(300, 600, (12, N)), rng.uniform(1.5, 3, (12, N)))
            d = np.minimum(2.0 * np.sqrt(k * arm_and_hand(0.5, 2e-3)), filter_.tank.servo.damping)
            filter_.offer(Chunk(q, now + 0.05 * np.arange(1, 13), i, now, stiffness=k, damping=d))
        t, number, q, qd, tau = w.read()
        reading = RobotState(t, number + 2, q, qd, tau)
        command, verdict = filter_.tick(reading, now, people=People(*nobody, received=now))
        levels = filter_.tank.book.level[:, LEFT]
        excess, lowest = max(excess, w.energy() + levels.sum() - start - w.work), np.minimum(lowest, levels)
        active += "energy_tank" in verdict.active
        w.step(command.q, command.stiffness, command.damping, np.zeros(N))
    assert excess <= TOLERANCE
    assert np.all(lowest >= 0.0)
    assert active > 20


def test_a_full_tank_grants_what_is_wanted_and_an_empty_one_nothing_that_rises():
    tank = Tank(KIN, BOUNDS, servo_of(KIN), arm=ROBOT.n_arm, dt=DT)
    home, zero = ROBOT.home, np.zeros(N)
    tank.start(0, home, home, zero)
    soft, stiff = arm_and_hand(100.0, 1.0), arm_and_hand(600.0, 3.0)
    for number, level, reached in ((1, 100.0, stiff), (2, 0.0, soft)):
        tank.sent(number * DT, home + 0.01, soft)
        tank.book.level[:, 0] = level
        tank.meter(number * DT, (number * DT, number, home, zero, zero), zero, zero, stiff)
        np.testing.assert_allclose(tank.granted(zero, stiff), reached)
        np.testing.assert_allclose(tank.granted(zero, 0.5 * soft), 0.5 * soft)


def test_a_reading_seen_before_settles_nothing_and_a_gap_is_charged():
    tank = Tank(KIN, BOUNDS, servo_of(KIN), arm=ROBOT.n_arm, dt=DT)
    home, zero, tau = ROBOT.home, np.zeros(N), np.full(N, 0.5)
    tank.start(0, home, home, zero)
    tank.sent(0.0, home)
    first = tank.meter(DT, (DT, 1, home, zero, tau), zero, zero).copy()
    np.testing.assert_array_equal(tank.meter(2 * DT, (DT, 1, home + 0.1, zero, tau), zero, zero), first)
    moved = home + arm_and_hand(1e-4, 0.0)
    spring = 0.5 * (servo_of(KIN).stiffness * (moved - home) ** 2).sum()
    gap = tank.meter(5 * DT, (5 * DT, 5, moved, zero, 3 * tau), zero, zero)
    assert gap[0] <= first[0] - 7 * 1e-4 * 1.5 - spring + 1e-9


@pytest.mark.parametrize("change", [{"initial": 200.0}, {"floor": 120.0}, {"efficiency": 1.1}, {"push": np.nan}])
def test_a_tank_that_cannot_be_is_refused(change):
    with pytest.raises(ConfigError, match="tank|floor"):
        replace(ARM, **change)


def test_a_rise_of_stiffness_is_charged_before_any_reading_shows_it_and_a_fall_is_not_credited():
    tank = Tank(KIN, BOUNDS, servo_of(KIN), arm=ROBOT.n_arm, dt=DT)
    home, zero = ROBOT.home, np.zeros(N)
    soft, stiff, e = arm_and_hand(100.0, 1.0), arm_and_hand(400.0, 3.0), 0.02
    tank.start(0, home, home, zero)
    reading = DT, 1, home, zero, zero
    tank.sent(0.0, home + e, soft)
    before = tank.meter(DT, reading, zero, zero).copy()
    tank.sent(3 * DT, home + e, stiff)
    after = tank.meter(2 * DT, reading, zero, zero).copy()
    assert after[0] <= before[0] - 7 * 0.5 * 300.0 * e * e
    tank.sent(4 * DT, home + e, soft)
    np.testing.assert_allclose(tank.meter(3 * DT, reading, zero, zero), after, atol=0.05)


def test_no_tank_is_filled_above_its_capacity_by_pushes():
    tanks = replace(ARM, capacity=30.0, initial=10.0), replace(HAND, capacity=2.0, initial=1.0)
    trials = [Trial(seed, impedance=True, configs=tanks, seconds=1.5) for seed in range(2)]
    assert all(np.all(t.highest <= [30.0, 2.0]) for t in trials)
    assert max(t.highest[0] for t in trials) > 28.0
