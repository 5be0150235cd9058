"""Worlds of one batch that differ, are pushed, are scripted, or break."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from palmar.safety.types import ConfigError
from palmar.sim.env import make_env
from palmar.sim.tasks.lift import LiftConfig, LiftTask
from palmar.sim.tasks.reach import ReachConfig, ReachTask

B = 3


class Scripted(LiftTask):
    """Lift with a body that moves along x at 0.2 m/s, and blocks of other sizes in every world."""

    def furnish(self, spec):
        super().furnish(spec)
        spec.worldbody.add_body(name="wanderer", mocap=True).add_geom(
            name="wanderer", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.02, 0, 0], contype=0, conaffinity=0
        )

    def start(self, rng, robot, k):
        start = super().start(rng, robot, k)
        mocap = np.zeros((k, 1, 7))
        mocap[..., 3] = 1.0
        return replace(start, mocap=mocap)

    def script(self, t, goal):
        out = np.zeros((*t.shape, 1, 7))
        out[..., 0, 0], out[..., 3] = 0.2 * t, 1.0
        return out


def make(robot, task=None, **kwargs):
    return make_env(task or LiftTask(LiftConfig()), robot, kwargs.pop("constraints", None), num_envs=B, **kwargs)


def test_fields_differ_per_world_and_constants_follow(robot):
    env = make(robot)
    e = env.engine
    body = e.model.body("red_cube").id
    mass = np.tile(e.model.body_mass, (1, 1))
    mass[0, body] = 0.7
    size = np.tile(e.model.geom_size, (1, 1, 1))
    e.set_fields(np.array([1]), {"body_mass": mass, "geom_size": size * 1.5})
    got = [e.batch.get_model(k) for k in range(B)]
    assert got[1].body_mass[body] == 0.7 and got[0].body_mass[body] < 0.25
    assert np.allclose(got[1].geom_size, 1.5 * e.model.geom_size) and np.array_equal(got[0].geom_size, got[2].geom_size)
    assert got[1].body_subtreemass[0] == pytest.approx(got[1].body_mass.sum())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"geom_colour": np.zeros((1, 3))}, "geom_colour"),
        ({"body_mass": np.zeros((1, 2))}, "shape"),
        ({"opt.gravity": np.full((1, 3), np.nan)}, "not finite"),
    ],
)
def test_impossible_fields_are_refused(robot, fields, said):
    with pytest.raises(ConfigError, match=said):
        make(robot).engine.set_fields(np.array([0]), fields)


def test_scripted_bodies_are_where_the_task_says_at_every_step(robot):
    env = make(robot, Scripted(LiftConfig()))
    for _ in range(3):
        env.step(np.zeros((B, env.action_dim)))
    # Poses of bodies belong to the state before the last step, and a scripted one moves with the input.
    assert env.engine.batch.mocap_pos[:, 0, 0] == pytest.approx(np.full(B, 0.2 * 0.15))


def test_a_push_moves_only_the_world_it_is_in(robot):
    env, calm = make(robot), make(robot)
    e = env.engine
    wrench = np.zeros((B, e.model.nbody, 6))
    wrench[1, e.model.body("red_cube").id, 0] = 3.0
    e.disturb(wrench, None)
    for _ in range(4):
        env.step(np.zeros((B, env.action_dim)))
        calm.step(np.zeros((B, env.action_dim)))
    moved = np.linalg.norm(e.objects()[0][:, 0] - calm.engine.objects()[0][:, 0], axis=1)
    assert moved[1] > 0.01 and moved[0] == 0 and moved[2] == 0
    e.disturb(None, None)
    assert not e.batch.xfrc_applied.any()


def test_a_joint_torque_tilts_a_soft_joint_further(robot):
    """Deflection is torque over stiffness: measured at rest."""
    env = make(robot)
    e, n = env.engine, robot.n
    kp = np.tile(e.model.actuator_gainprm[e._act, 0], (B, 1))
    kd = np.tile(-e.model.actuator_biasprm[e._act, 2], (B, 1))
    kp[1] *= 0.5
    e.impedance(kp, kd)
    torque = np.zeros((B, n))
    torque[:, 5] = 3.0
    before = e.q[:, 5].copy()
    e.disturb(None, torque)
    held = np.tile(e.q, (400, 1, 1))
    e.advance(held, held * 0, held * 0, held * 0)
    moved = e.q[:, 5] - before
    assert moved[0] == pytest.approx(3.0 / kp[0, 5], rel=0.05)
    assert moved[1] / moved[0] == pytest.approx(2.0, rel=0.05)
    with pytest.raises(ConfigError, match="stiffness"):
        e.impedance(-kp, kd)


def test_a_world_that_breaks_is_restarted_counted_and_dumped_and_the_others_do_not_notice(robot, constraints, tmp_path):
    env = make(robot, constraints=constraints, seed=4, dump=tmp_path / "broken")
    calm = make(robot, constraints=constraints, seed=4)
    for e in (env, calm):
        e.step(np.zeros((B, e.action_dim)))
    env.engine.qvel[1] = np.inf
    s, quiet = env.step(np.zeros((B, env.action_dim))), calm.step(np.zeros((B, env.action_dim)))
    assert env.broken == 1 and s.info["broken"].tolist() == [False, True, False]
    assert s.truncated.tolist() == [False, True, False]
    for value in (s.obs, s.reward, s.cost, s.info["margin"]):
        assert np.isfinite(value[[0, 2]]).all() and not np.isnan(value).any()
    assert s.cost[1].sum() == 0 and s.reward[1] == 0 and not s.info["success"][1]
    others = [0, 2]
    assert np.array_equal(s.obs[others], quiet.obs[others]) and np.array_equal(s.cost[others], quiet.cost[others])
    with np.load(tmp_path / "broken" / "broken_1.npz") as dumped:
        assert dumped["worlds"].tolist() == [1] and not np.isfinite(dumped["state"]).all()
    after = env.step(np.zeros((B, env.action_dim)))
    assert env.broken == 1 and np.isfinite(after.obs).all()


@pytest.mark.parametrize("task", [LiftTask(LiftConfig()), ReachTask(ReachConfig())], ids=["lift", "reach"])
def test_a_measurement_keeps_its_values_while_the_simulation_goes_on(robot, constraints, task):
    """The engine records into the same memory at every step; what it hands out must not lie there."""
    env = make_env(task, robot, constraints, num_envs=1, seed=0)
    seen, advance = [], env.engine.advance
    env.engine.advance = lambda *u, **how: seen.append(advance(*u, **how)) or seen[-1]
    env.step(np.ones((1, env.action_dim)))
    q, told = env.engine.q, (seen[0], env.engine.measure())
    kept = [{k: v.copy() for k in m.__dataclass_fields__ if (v := getattr(m, k)) is not None} for m in told]
    before = q.copy()
    for _ in range(3):
        env.step(-np.ones((1, env.action_dim)))
    assert not np.array_equal(env.engine.q, before) and np.array_equal(q, before)
    for m, then in zip(told, kept, strict=True):
        for name, value in then.items():
            assert np.array_equal(getattr(m, name), value), name
