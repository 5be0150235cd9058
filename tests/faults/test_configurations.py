"""Row 26: what is not of this robot, its limits or its constraints does not arm."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
import pytest
import toy_robot as toy
from matrix import named
from rollouts_and_bundles import shipped

from palmar.benchmarks.plant import Reading
from palmar.policies.bundle import load_bundle
from palmar.policies.contract import TaskContract
from palmar.real_robot import config as run_config
from palmar.real_robot.drivers.twin import twin_robot
from palmar.real_robot.twin import open_memory
from palmar.safety.constraints import parse
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.robot import RobotModel
from palmar.safety.types import BundleRefused, CommandRefused, ConfigError, PalmarError
from palmar.sim.robots import load_robot

TEXT = (files("palmar.configs") / "constraints" / "arm_hand.yaml").read_text()


def bundle_for(change):
    """A bundle whose robot or constraints are not those here is not run."""

    def check(tmp_path):
        bundle = load_bundle(shipped(tmp_path))
        robot, constraints, task = change(load_robot(), bundle)
        with pytest.raises(BundleRefused, match="the bundle has"):
            bundle.check(robot, constraints, task)

    return check


def other(name):
    def change(robot, bundle):
        here = load_robot(name)
        return here, parse(TEXT, here.limits), bundle.task

    return change


def limits(**changes):
    def change(robot, bundle):
        m = replace(robot.limits, **{k: f(getattr(robot.limits, k)) for k, f in changes.items()})
        return replace(robot, limits=m), parse(TEXT, m), bundle.task

    return change


def hands_swapped(robot, bundle):
    joints = (*robot.joints[:7], *robot.joints[11:], *robot.joints[7:11])
    return replace(robot, joints=joints), parse(TEXT, robot.limits), bundle.task


def task_in_degrees(robot, bundle):
    task: TaskContract = bundle.task
    rows = tuple((n, size, "deg" if unit == "rad" else unit) for n, size, unit in task.observation)
    return robot, parse(TEXT, robot.limits), replace(task, observation=rows)


def refused(kind, act, match=None):
    def check(tmp_path):
        with pytest.raises(kind, match=match):
            act(tmp_path)

    return check


def started_at(change):
    def act(tmp_path):
        robot = load_robot()
        zero = np.zeros(robot.n)
        Filter(robot, parse(TEXT, robot.limits)).start(Reading(0.0, 1, change(robot.home.copy()), zero, zero))

    return act


def of_limits(**changes):
    return lambda tmp: replace(load_robot().limits, **{k: np.asarray(v) for k, v in changes.items()})


def twin_of_another_robot(tmp_path):
    run = toy.run_config(tmp_path)
    memory = open_memory(Path(run.twin_memory), run, mujoco.MjModel.from_xml_string(run.scene))
    try:
        twin_robot(replace(toy.robot(), name="another"), Path(run.twin_memory), timeout=0.5)
    finally:
        memory.close()


def old_calibration(q):
    q[3] += 3.0
    return q


CONFIGURATIONS = {
    "bundle-of-fr3-on-panda": bundle_for(other("panda_leap")),
    "bundle-of-leap-on-allegro": bundle_for(other("fr3_allegro")),
    "speed-limits-of-another-arm": bundle_for(limits(v_max=lambda v: v * 1.1)),
    "position-limits-in-degrees": bundle_for(limits(q_min=np.degrees, q_max=np.degrees)),
    "fingers-swapped": bundle_for(hands_swapped),
    "observations-in-degrees": bundle_for(task_in_degrees),
    "start-in-degrees": refused(CommandRefused, started_at(np.degrees), "start"),
    "calibration-off-by-3-rad": refused(CommandRefused, started_at(old_calibration), "fr3_joint4"),
    "hand-mirrored": refused(CommandRefused, started_at(lambda q: np.where(np.arange(23) >= 7, -q, q))),
    "twin-of-another-robot": refused(PalmarError, twin_of_another_robot, "robot"),
    "limits-swapped": refused(ConfigError, lambda tmp: replace_limits(), "q_min < q_max"),
    "limits-nan": refused(ConfigError, of_limits(v_max=np.full(23, np.nan)), "NaN"),
    "limits-of-22-joints": refused(ConfigError, of_limits(a_max=np.ones(22)), "a_max"),
    "acceleration-limit-zero": refused(ConfigError, of_limits(a_max=np.zeros(23)), "positive"),
    "period-of-a-second": refused(ConfigError, lambda tmp: FilterConfig(dt=1.0), "dt"),
    "run-configuration-with-an-unknown-key": refused(ConfigError, lambda tmp: unknown_key(tmp), "unknown"),
}


def replace_limits():
    m = load_robot().limits
    return replace(m, q_min=m.q_max, q_max=m.q_min)


def unknown_key(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"run_dir": ".", "sudo": True}))
    run_config.read(tmp_path / "run.json")


@pytest.mark.parametrize("check", named(26, CONFIGURATIONS, ("bundle-of-fr3-on-panda", "start-in-degrees")))
def test_a_configuration_that_does_not_fit_does_not_arm(tmp_path, check):
    check(tmp_path)


def test_a_robot_model_survives_its_own_file(tmp_path):
    robot = load_robot()
    assert RobotModel.from_json(json.loads(json.dumps(robot.to_json()))).hash() == robot.hash()
