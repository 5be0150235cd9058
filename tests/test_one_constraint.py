"""Law 1, end to end: training cost, filter verdict, audit and report name the same violated samples.

A real filter in shadow mode (so that things go wrong) drives the simulated robot at 1 kHz; the run is recorded,
read back, costed by the training function in float64 and float32, audited, and printed into a report.
"""

from dataclasses import fields
from importlib.resources import files

import mujoco
import numpy as np
import pytest
import torch
import yaml

from palmar.cli.wiring import clearance_of
from palmar.rollouts.audit import audit, disagreement
from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.read import read
from palmar.rollouts.record import RolloutWriter
from palmar.rollouts.report.page import Summary, write_report
from palmar.safety.constraints import parse
from palmar.safety.filter import Filter
from palmar.safety.types import Chunk, Measurement
from palmar.sim import scene
from palmar.sim.interface import RobotState
from palmar.sim.robots import load_robot

DT = 0.001
FILE = (files("palmar.configs") / "constraints" / "arm_hand.yaml").read_text()
AT_RUNTIME = tuple(name for name, c in yaml.safe_load(FILE)["constraints"].items() if c["runtime"].endswith("row"))
"""A row added to the file is held to these laws without an edit here."""


def mutated(**limits) -> str:
    raw = yaml.safe_load(FILE)
    for name, params in limits.items():
        raw["constraints"][name]["params"].update(params)
    return yaml.safe_dump(raw, sort_keys=False)


def record(path, text):
    """Push the palm down and the fingers together for 0.8 s with the filter only watching."""
    robot = load_robot()
    constraints = parse(text, robot.limits)
    model, _ = scene.compose()
    model.opt.timestep = DT
    data = mujoco.MjData(model)
    qadr = np.array([model.joint(j).qposadr[0] for j in robot.joints])
    act = np.array([model.actuator(j).id for j in robot.joints])
    data.qpos[qadr], data.ctrl[act] = robot.home, robot.home
    mujoco.mj_forward(model, data)
    f = Filter(robot, constraints, mode="shadow")

    def reading(k):
        return RobotState(k * DT, k, data.qpos[qadr].copy(), data.qvel[qadr].copy(), data.actuator_force[act].copy())

    f.start(reading(0))
    down = robot.home.copy()
    down[1] += 0.9
    down[robot.n_arm :] = np.clip(down[robot.n_arm :] + 0.6, robot.limits.q_min[7:], robot.limits.q_max[7:])
    header = RolloutHeader(
        task="none", instruction="push", robot=robot, constraints=text, control_dt=DT, scene="test", objects=()
    )
    verdicts = []
    with RolloutWriter(path, header) as out:
        for k in range(1, 801):
            if k % 50 == 1:
                f.offer(Chunk(q=down[None], t=np.array([k * DT + 0.1]), seq=k, received=k * DT))
            state = reading(k)
            command, verdict = f.tick(state, k * DT)
            m = f.measurement
            out.joint_state(k * DT, state.q, state.qd, state.tau)
            out.command(k * DT, m.u, m.ud, m.udd, m.uddd)
            out.verdict(k * DT, verdict)
            verdicts.append(verdict.margins)
            data.ctrl[act] = command.q
            mujoco.mj_step(model, data)
    return verdicts


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("law")
    tight = mutated(table_clearance={"limit": 0.1}, self_clearance={"limit": 0.004})
    out = {}
    for name, text in (("file", FILE), ("tight", tight)):
        path = folder / f"{name}.mcap"
        out[name] = (record(path, text), read(path), text)
    return out


def violated_by_training(rollout, constraints, dtype):
    """Which samples the training cost charges, per constraint, one interval per sample."""
    m = rollout.measurements(clearance_of(rollout.header.robot))
    if dtype is not None:
        values = {
            f.name: torch.tensor(np.ascontiguousarray(getattr(m, f.name)), dtype=dtype)
            for f in fields(m)
            if getattr(m, f.name) is not None
        }
        m = Measurement(**values)
    carry, charged = constraints.start(m.at(0)), []
    for s in range(len(m.t)):
        result = constraints.over(m.at(slice(s, s + 1)), carry, dt=DT)
        carry = result.carry
        charged.append(np.asarray(result.cost) > 0)
    return np.array(charged)


@pytest.mark.parametrize("run", ["file", "tight"])
def test_training_filter_and_audit_name_the_same_samples(runs, run):
    verdicts, rollout, text = runs[run]
    constraints = rollout.header.constraint_set()
    found = audit(rollout, constraints, clearance_of(rollout.header.robot))
    chosen = constraints.select(AT_RUNTIME)
    by_training = violated_by_training(rollout, chosen, None)
    for k, name in enumerate(AT_RUNTIME):
        by_filter = np.array([v[name] < 0 for v in verdicts])
        np.testing.assert_array_equal(by_training[:, k], by_filter, err_msg=name)
        np.testing.assert_array_equal(found[name].violated, by_filter, err_msg=name)
    assert set(disagreement(found, rollout).values()) <= {0}
    assert found["table_clearance"].violated.any() and not found["table_clearance"].violated.all()


def test_float32_differs_only_within_its_band_of_zero(runs):
    _, rollout, _ = runs["tight"]
    chosen = rollout.header.constraint_set().select(AT_RUNTIME)
    a, b = (violated_by_training(rollout, chosen, dtype) for dtype in (None, torch.float32))
    found = audit(rollout, rollout.header.constraint_set(), clearance_of(rollout.header.robot))
    for k, name in enumerate(AT_RUNTIME):
        differ = a[:, k] != b[:, k]
        scale = {"joint_jerk": 1e4, "joint_acceleration": 100.0, "joint_torque": 100.0}.get(name, 10.0)
        assert np.all(np.abs(found[name].margin[differ]) < 1e-6 * scale), name


def test_mutating_one_limit_changes_all_four(runs, tmp_path):
    count = {}
    for name in ("file", "tight"):
        verdicts, rollout, text = runs[name]
        constraints = rollout.header.constraint_set()
        found = audit(rollout, constraints, clearance_of(rollout.header.robot))
        page = write_report(tmp_path / f"{name}.html", [rollout], [found], summary=Summary(), max_videos=0).read_text()
        row = page[page.index("table clearance") if "table clearance" in page else page.index("table_clearance") :]
        count[name] = (
            int(violated_by_training(rollout, constraints.select(("table_clearance",)), None).sum()),
            sum(v["table_clearance"] < 0 for v in verdicts),
            int(found["table_clearance"].violated.sum()),
            row[:1500],
        )
    assert count["file"][0] == count["file"][1] == count["file"][2]
    for a, b in zip(count["file"], count["tight"], strict=True):
        assert a != b
    assert count["tight"][0] > count["file"][0]


def test_the_filter_that_enforces_keeps_what_the_watching_one_saw_broken(tmp_path):
    """The same push, enforced: no hard row from a measured source is broken, and the file's limit is why."""
    robot = load_robot()
    worst = {}
    for name, text in (("file", FILE), ("tight", mutated(table_clearance={"limit": 0.08}))):
        f = Filter(robot, parse(text, robot.limits), mode="enforce")
        state = RobotState(0.0, 0, robot.home.copy(), np.zeros(robot.n), np.zeros(robot.n))
        f.start(state)
        down = robot.home.copy()
        down[1] += 0.9
        for k in range(1, 1501):
            if k % 50 == 1:
                f.offer(Chunk(q=down[None], t=np.array([k * DT + 0.1]), seq=k, received=k * DT))
            state = RobotState(k * DT, k, f.u.copy(), f.ud.copy(), np.zeros(robot.n))
            _, verdict = f.tick(state, k * DT)
            for key, value in verdict.margins.items():
                worst[name, key] = min(value, worst.get((name, key), np.inf))
    hard = [n for n in AT_RUNTIME if n != "joint_torque"]
    assert all(worst[run, n] >= 0 for run in ("file", "tight") for n in hard), worst
    assert worst["tight", "table_clearance"] < 0.02  # it came to its own limit, 8 cm up, and stopped there


@pytest.mark.parametrize("seed", [0, 1])
def test_hard_rows_hold_for_the_measured_robot_too(seed):
    """Law 3 with a servo that lags: an enforcing filter, a hostile policy, the simulated arm and hand at 1 kHz."""
    robot, rng = load_robot(), np.random.default_rng(seed)
    model, _ = scene.compose()
    model.opt.timestep = DT
    data = mujoco.MjData(model)
    qadr = np.array([model.joint(j).qposadr[0] for j in robot.joints])
    act = np.array([model.actuator(j).id for j in robot.joints])
    data.qpos[qadr], data.ctrl[act] = robot.home, robot.home
    mujoco.mj_forward(model, data)
    f = Filter(robot, parse(FILE, robot.limits))
    f.start(RobotState(0.0, 0, robot.home.copy(), np.zeros(robot.n), np.zeros(robot.n)))
    worst: dict[str, float] = {}
    lag = 0.0
    for k in range(1, 2001):
        if k % 50 == 1:
            wild = robot.home + rng.uniform(-0.7, 0.7, robot.n)
            wild[1] = robot.home[1] + rng.uniform(0.0, 0.7)  # the shoulder goes down
            f.offer(Chunk(q=wild[None], t=np.array([k * DT + 0.05]), seq=k, received=k * DT))
        q = data.qpos[qadr].copy()
        state = RobotState(k * DT, k, q, data.qvel[qadr].copy(), data.actuator_force[act].copy())
        command, verdict = f.tick(state, k * DT)
        lag = max(lag, float(np.abs(q - f.u)[: robot.n_arm].max()))
        for name, value in verdict.margins.items():
            worst[name] = min(value, worst.get(name, np.inf))
        data.ctrl[act] = command.q
        mujoco.mj_step(model, data)
    assert lag > 0.01  # the measured robot really is somewhere else
    hard = [c.name for c in f.constraints.constraints if c.runtime == "hard row" and c.source == "measured"]
    broken = {n: worst[n] for n in hard if worst[n] < 0}
    assert not broken
