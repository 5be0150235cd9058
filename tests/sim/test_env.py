"""Laws of the vector environment and its engine."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from palmar.safety.constraints import ConstraintSet
from palmar.safety.geometry import FAR
from palmar.safety.types import CommandRefused
from palmar.sim.env import make_env
from palmar.sim.gym import BatchEnv, SingleEnv
from palmar.sim.interface import View
from palmar.sim.tasks.lift import LiftConfig, LiftTask
from palmar.sim.tasks.lift_oracle import LiftOracle
from palmar.sim.tasks.oracles import DoNothing
from palmar.sim.tasks.reach import ReachConfig, ReachTask


def lift(robot, constraints, n=4, **kwargs):
    config = LiftConfig(**kwargs.pop("config", {}))
    return make_env(LiftTask(config), robot, constraints, num_envs=n, **kwargs)


def roll(env, steps, seed=5):
    rng = np.random.default_rng(seed)
    return [env.step(rng.uniform(-1, 1, (env.num_envs, env.action_dim))) for _ in range(steps)]


def test_same_seed_is_bit_identical_at_any_thread_count(robot, constraints):
    runs = [roll(lift(robot, constraints, 5, seed=3, nthread=t), 12) for t in (1, 2, 3)]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert np.array_equal(a.obs, b.obs)
            assert np.array_equal(a.cost, b.cost)
            assert np.array_equal(a.reward, b.reward)


def test_another_seed_is_another_run(robot, constraints):
    a, b = (roll(lift(robot, constraints, 2, seed=s), 2)[-1].obs for s in (0, 1))
    assert not np.array_equal(a, b)


def test_measurements_belong_to_the_state_after_their_step(robot, constraints):
    """Moving bodies: an independent MuJoCo at each recorded state finds the same clearances and palm."""
    env = lift(robot, constraints, 2, seed=0)
    seen = []
    advance = env.engine.advance
    env.engine.advance = lambda *u, **given: seen.append(advance(*u, **given)) or seen[-1]
    roll(env, 6)
    model = env.engine.model
    data = mujoco.MjData(model)
    moved = 0.0
    for m in seen[3:]:
        for s in (0, 4, 9):
            for j, q in zip(robot.joints, m.q[s, 1], strict=True):
                data.qpos[model.joint(j).qposadr[0]] = q
            mujoco.mj_kinematics(model, data)
            np.testing.assert_allclose(m.palm_position[s, 1], data.body("palm").xpos, atol=1e-12)
            table = min(lowest(model, data, g) for g in robot.table_geoms)
            np.testing.assert_allclose(m.clearance_table[s, 1], table, atol=1e-9)
        moved = max(moved, float(np.abs(np.diff(m.palm_position[:, 1], axis=0)).max()))
    assert moved > 1e-4  # or the test could not tell one step from the next


def lowest(model, data, name):
    g = model.geom(name).id
    half = model.geom_size[g, 1] if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_CAPSULE else 0.0
    return data.geom_xpos[g, 2] - abs(data.geom_xmat[g].reshape(3, 3)[2, 2]) * half - model.geom_size[g, 0]


def test_self_clearance_of_a_sample_is_mujocos(robot, constraints):
    env = lift(robot, constraints, 3, seed=1)
    roll(env, 8)
    m = env.engine.measure()
    data = mujoco.MjData(env.engine.model)
    for w in range(3):
        data.qpos[:] = env.engine.qpos[w]
        mujoco.mj_kinematics(env.engine.model, data)
        ids = [(env.engine.model.geom(a).id, env.engine.model.geom(b).id) for a, b in robot.pairs]
        want = min(mujoco.mj_geomDistance(env.engine.model, data, a, b, 0.2, None) for a, b in ids)
        assert m.clearance_self[w] == pytest.approx(min(want, FAR), abs=1e-6)


def test_costs_of_an_action_are_those_of_its_own_interval(robot, constraints):
    """Pushing the palm down costs table force from the step on in which it touches, not one later."""
    env = lift(robot, constraints, 1, seed=0)
    k = constraints.names.index("table_force")
    action = np.zeros((1, 8))
    action[0, 2] = -1.0
    for _ in range(40):
        s = env.step(action)
        touched = s.info["peak_force"][0, 0] > 5.0
        assert (s.cost[0, k] > 0) == touched or s.cost[0, k] > 0
        if touched:
            break
    assert touched and s.cost[0, k] > 0


def test_cost_is_seconds_of_violated_samples(robot, constraints):
    env = lift(robot, constraints, 2, seed=0)
    seen = []
    advance = env.engine.advance
    env.engine.advance = lambda *u, **given: seen.append(advance(*u, **given)) or seen[-1]
    action = np.zeros((2, 8))
    action[:, 2] = -1.0
    total, k = np.zeros(2), constraints.names.index("table_clearance")
    for _ in range(30):
        total += env.step(action).cost[:, k]
    below = sum((m.clearance_table < constraints["table_clearance"].params["limit"]).sum(axis=0) for m in seen)
    np.testing.assert_allclose(total, below * env.engine.dt, rtol=1e-5)
    assert below.max() > 0


def test_auto_reset_keeps_the_terminal_observation(robot, constraints):
    env = lift(robot, constraints, 3, seed=0, config={"max_steps": 5})
    for k in range(5):
        s = env.step(np.zeros((3, 8)))
        assert s.truncated.all() == (k == 4)
    assert not np.allclose(s.obs, s.info["terminal_obs"])
    again = env.step(np.zeros((3, 8)))
    assert not again.truncated.any()


def test_costs_off_changes_nothing_else(robot, constraints):
    on, off = lift(robot, constraints, 3, seed=4), lift(robot, None, 3, seed=4)
    for a, b in zip(roll(on, 8), roll(off, 8), strict=True):
        assert np.array_equal(a.obs, b.obs) and np.array_equal(a.reward, b.reward)
        assert b.cost.shape == (3, 0)


@pytest.mark.parametrize("bad", [np.zeros((4, 7)), np.zeros((3, 8)), np.full((4, 8), np.nan)])
def test_bad_actions_are_refused_and_nothing_moves(robot, constraints, bad):
    env = lift(robot, constraints, 4, seed=0)
    before = env.engine.qpos.copy()
    with pytest.raises(CommandRefused):
        env.step(bad)
    assert np.array_equal(before, env.engine.qpos)


def test_single_environment_passes_gymnasiums_check(robot, constraints):
    check_env(SingleEnv(lift(robot, constraints, 1, nthread=1)), skip_render_check=True)
    check_env(SingleEnv(make_env(ReachTask(ReachConfig()), robot, constraints, num_envs=1)), skip_render_check=True)


def test_vector_environment_keeps_its_autoreset_contract(robot, constraints):
    env = BatchEnv(lift(robot, constraints, 3, config={"max_steps": 4}))
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    for k in range(9):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample() * 0)
        assert env.observation_space.contains(obs) and reward.shape == (3,) and not terminated.any()
        assert set(info["costs"]) == set(constraints.names)
        assert truncated.all() == ((k + 1) % 4 == 0)
        assert ("final_obs" in info) == truncated.any()
        if truncated.any():
            assert info["_final_obs"].all() and not np.array_equal(info["final_obs"], obs)


def test_friction_and_mass_differ_between_worlds_and_only_they(robot, constraints):
    env = lift(robot, constraints, 6, seed=0)
    model, batch = env.engine.model, env.engine.batch
    friction = batch.expanded("geom_friction")
    tip, table = model.geom("if_tip").id, model.geom("table").id
    assert len(np.unique(friction[:, tip, 0])) == 6
    assert np.all(friction[:, table] == model.geom_friction[table])
    mass = batch.expanded("body_mass")
    block, palm = model.body("red_cube").id, model.body("palm").id
    assert len(np.unique(mass[:, block])) == 6 and np.all(mass[:, palm] == model.body_mass[palm])
    low, high = LiftConfig().mass
    assert mass[:, block].min() >= low and mass[:, block].max() <= high


def test_oracle_lifts_and_doing_nothing_does_not(robot, constraints):
    lifted = []
    for policy, worlds in ((LiftOracle(), 24), (DoNothing(8), 6)):
        env = lift(robot, None, worlds, seed=11)
        obs, carry = env.reset(11), policy.start(worlds)
        for _ in range(env.max_steps):
            action, carry = policy.act(obs, carry)
            s = env.step(action)
            obs = s.obs
        lifted.append(int(s.info["success"].sum()))
    assert lifted[0] >= 21 and lifted[1] == 0


def test_lifting_another_block_is_no_success(robot, constraints):
    task = LiftTask(LiftConfig())
    position = np.array([[[0.5, 0, 0.15], [0.5, 0.1, 0.025], [0.5, -0.1, 0.03]]])

    def achieved(target):
        blank = dict.fromkeys(View.__dataclass_fields__)
        return task.achieved(View(**{**blank, "position": position, "goal": np.array([target])})).all()

    assert achieved(0)
    assert not achieved(1)
    position[0, 2, 2] = 0.2
    assert not achieved(0)


def test_a_selection_of_constraints_gives_only_those_channels(robot, constraints: ConstraintSet):
    env = lift(robot, constraints, 2, config={"constraints": ("table_force", "self_clearance")})
    assert env.constraint_names == ("table_force", "self_clearance")
    assert env.step(np.zeros((2, 8))).cost.shape == (2, 2)


def test_mutating_one_limit_changes_the_training_cost(robot, constraints: ConstraintSet):
    row = constraints["table_clearance"]
    tight = replace(row, params={"limit": 1.0})
    mutated = replace(constraints, constraints=tuple(tight if c is row else c for c in constraints.constraints))
    k = constraints.names.index("table_clearance")
    a, b = (roll(lift(robot, c, 2, seed=0), 2)[-1].cost[:, k] for c in (constraints, mutated))
    assert np.all(a == 0) and np.all(b > 0)
