"""Laws of engine ``isaaclab`` in the scene of task ``lift``: the numbers that other engines and the filter rely on."""

import mujoco
import numpy as np
import pytest
import torch
from worlds import WORLDS, made

from palmar.safety.types import CommandRefused, Measurement
from palmar.sim import scene

GRAVITY = 9.81
CUBE, BOX = 0, 2
"""Blocks whose rest is stable to micrometres; the cylinder (1) rocks on few contacts."""


@pytest.fixture(scope="module")
def env(parts):
    env = made(parts)
    yield env
    env.close()


@pytest.fixture
def fresh(env):
    """The environment in the state, friction and mass of seed 3."""
    env.reset(seed=3)
    return env


def rotation(quaternion):
    """Matrix (3, 3) of a unit quaternion w-x-y-z."""
    out = np.empty(9)
    mujoco.mju_quat2Mat(out, np.asarray(quaternion, dtype=np.float64))
    return out.reshape(3, 3)


def zeros(env):
    return torch.zeros(env.num_envs, env.io.action_dim)


def settle(env, steps=10):
    for _ in range(steps):
        env.step(zeros(env))


def pose(env, q):
    """Put every world at joint positions q (B, n), blocks where they are."""
    position, quaternion = env.plant.objects()
    env.plant.reset(torch.arange(env.num_envs), torch.as_tensor(q), torch.cat([position, quaternion], dim=-1))


def test_the_base_is_fixed_and_stays_at_the_origin_of_its_world(fresh):
    assert fresh.plant.arm.is_fixed_base
    rng = np.random.default_rng(0)
    for _ in range(5):
        fresh.step(torch.as_tensor(rng.uniform(-1, 1, (WORLDS, fresh.io.action_dim)), dtype=torch.float32))
    base = fresh.plant.arm.data.root_link_pos_w.torch - fresh.scene.env_origins
    assert float(base.abs().max()) < 1e-6


def test_every_link_stands_where_our_mjcf_puts_it(fresh):
    robot, rng = fresh.robot, np.random.default_rng(1)
    q = rng.uniform(robot.limits.q_min, robot.limits.q_max, (WORLDS, robot.n))
    pose(fresh, q)
    fresh.sim.forward()
    names = fresh.plant.arm.body_names
    found = fresh.plant.arm.data.body_link_pose_w.torch.numpy()
    model = mujoco.MjModel.from_xml_string(robot.xml)
    data = mujoco.MjData(model)
    for world in range(WORLDS):
        data.qpos[[model.joint(j).qposadr[0] for j in robot.joints]] = q[world]
        mujoco.mj_kinematics(model, data)
        for k, name in enumerate(names):
            at = found[world, k, :3] - fresh.scene.env_origins[world].numpy()
            np.testing.assert_allclose(at, data.body(name).xpos, atol=2e-6, err_msg=name)
            turn = rotation(np.roll(found[world, k, 3:], 1))
            np.testing.assert_allclose(turn, data.body(name).xmat.reshape(3, 3), atol=2e-5, err_msg=name)


def test_the_palm_we_measure_is_the_one_the_policy_computes(fresh):
    settle(fresh, 3)
    palm = fresh.io.kinematics.hand(fresh.plant.q.numpy()).palm
    np.testing.assert_allclose(fresh.plant.palm.numpy(), palm, atol=5e-6)


def test_quaternions_are_w_x_y_z_on_our_side_and_x_y_z_w_on_isaac_labs(fresh):
    position, _ = fresh.plant.objects()
    quarter = torch.tensor([np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)], dtype=torch.float64)  # about z
    poses = torch.cat([position, quarter.expand(WORLDS, position.shape[1], 4)], dim=-1)
    fresh.plant.reset(torch.arange(WORLDS), fresh.plant.q, poses)
    raw = fresh.scene[fresh.task.objects[CUBE]].data.root_link_pose_w.torch[0, 3:].numpy()
    np.testing.assert_allclose(raw, [0, 0, np.sqrt(0.5), np.sqrt(0.5)], atol=1e-6)
    np.testing.assert_allclose(fresh.plant.objects()[1][0, CUBE].numpy(), quarter, atol=1e-6)
    x_axis = rotation(fresh.plant.objects()[1][0, CUBE].numpy())[:, 0]
    np.testing.assert_allclose(x_axis, [0, 1, 0], atol=1e-6)


def test_a_resting_block_weighs_its_drawn_mass(fresh):
    settle(fresh)
    for m in (CUBE, BOX):
        name = fresh.task.objects[m]
        force = fresh.scene.sensors[f"{name}_touch"].data.net_forces_w.torch[:, 0].numpy()
        mass = fresh.scene[name].data.body_mass.torch[:, 0].numpy()
        assert np.ptp(mass) > 0.01  # drawn per world
        np.testing.assert_allclose(force[:, 2], mass * GRAVITY, rtol=2e-3)
        np.testing.assert_allclose(force[:, :2], 0.0, atol=5e-3)


def test_friction_and_mass_of_every_world_reach_the_solver(fresh):
    rng, c = np.random.default_rng(3), fresh.task.config
    mu = rng.uniform(*c.friction, WORLDS)
    mass = rng.uniform(*c.mass, (WORLDS, len(fresh.task.objects)))
    settle(fresh, 1)
    solver = fresh.plant._solver
    geoms = [solver.mj_model.geom(g).name for g in range(solver.mj_model.ngeom)]
    tips = [k for k, name in enumerate(geoms) if any(f"/{tip}_" in name for tip in fresh.robot.tip_geoms)]
    assert len(tips) == 4
    np.testing.assert_allclose(solver.mjw_model.geom_friction.numpy()[:, tips, 0], mu[:, None].repeat(4, 1), rtol=1e-6)
    bodies = [solver.mj_model.body(b).name for b in range(solver.mj_model.nbody)]
    for m, name in enumerate(fresh.task.objects):
        body = next(k for k, label in enumerate(bodies) if label.endswith(name))
        np.testing.assert_allclose(solver.mjw_model.body_mass.numpy()[:, body], mass[:, m], rtol=1e-6)


def test_a_servo_is_one_actuator_with_stiffness_damping_and_torque_limit(fresh):
    """Two of them, limited by the joint, keep their damping in MuJoCo's integrator while the torque is cut off."""
    theirs, ours = fresh.plant._solver.mj_model, fresh.plant.parts.model
    assert theirs.nu == fresh.robot.n
    names = [theirs.joint(int(theirs.actuator_trnid[k, 0])).name for k in range(theirs.nu)]
    for k, long_name in enumerate(names):
        own = ours.actuator(next(j for j in fresh.robot.joints if long_name.endswith(f"_{j}"))).id
        for field in ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "actuator_forcelimited"):
            np.testing.assert_allclose(getattr(theirs, field)[k], getattr(ours, field)[own], rtol=1e-6, err_msg=field)


def test_the_same_pairs_collide_as_in_our_mjcf_but_for_the_base(fresh):
    theirs = fresh.plant._solver.mj_model
    kind = np.array([kind_of(theirs.geom(g).name, fresh) for g in range(theirs.ngeom)])
    con = np.stack([theirs.geom_contype, theirs.geom_conaffinity]).astype(np.int64) & 0xFFFFFFFF
    meet = ((con[0][:, None] & con[1]) | (con[1][:, None] & con[0])) != 0
    for a in range(theirs.ngeom):
        for b in range(a):
            pair = {kind[a], kind[b]}
            assert meet[a, b] != (pair in ({"link"}, {"link", "tip"})), (theirs.geom(a).name, theirs.geom(b).name)


def kind_of(name, env):
    """tip, link or thing."""
    if "/Robot/" not in name:
        return "thing"
    return "tip" if any(f"/{tip}_" in name for tip in env.robot.tip_geoms) else "link"


def test_in_free_space_it_moves_like_plain_mujoco(fresh):
    """Same MuJoCo version, our MJCF, same commands: what is left is the solver's precision."""
    spec = scene.robot_spec("fr3", "leap")
    fresh.task.furnish(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    columns = [model.joint(j).qposadr[0] for j in fresh.robot.joints]
    position, quaternion = (x[0].numpy() for x in fresh.plant.objects())
    data.qpos[columns] = fresh.plant.q[0].numpy()
    for m, name in enumerate(fresh.task.objects):
        adr = model.joint(f"{name}_free").qposadr[0]
        data.qpos[adr : adr + 7] = np.concatenate([position[m], quaternion[m]])
    rng = np.random.default_rng(2)
    for _ in range(20):
        action = rng.uniform(-1, 1, (WORLDS, fresh.io.action_dim))
        action[:, 2] = 0.5  # upwards, away from everything
        fresh.step(torch.as_tensor(action, dtype=torch.float32))
        for u in fresh._sent[0][:, 0].numpy():
            for j, x in zip(fresh.robot.joints, u, strict=True):
                data.actuator(j).ctrl[0] = x
            mujoco.mj_step(model, data)
    assert np.abs(fresh.plant.q[0].numpy() - fresh.robot.home).max() > 0.05
    np.testing.assert_allclose(fresh.plant.q[0].numpy(), data.qpos[columns], atol=2e-4)


class Recorder:
    """A constraint set that keeps what it was asked."""

    def __init__(self, inner):
        self.inner, self.asked = inner, []

    def over(self, samples, carry, *, dt):
        self.asked.append((samples, dict(carry), dt))
        return self.inner.over(samples, carry, dt=dt)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def numpy_of(m):
    fields = {name: getattr(m, name) for name in Measurement.__dataclass_fields__}
    return Measurement(**{k: None if x is None else x.numpy() for k, x in fields.items()})


def test_costs_are_those_of_the_constraint_file_over_the_same_samples(fresh):
    plain, fresh.constraints = fresh.constraints, Recorder(fresh.constraints)
    total = np.zeros(len(plain.names))
    try:
        down = zeros(fresh)
        down[:, 2], down[:, 4:] = -1.0, 1.0
        for _ in range(14):
            extras = fresh.step(down)[4]
            samples, carry, dt = fresh.constraints.asked[-1]
            assert samples.q.shape == (10, WORLDS, fresh.robot.n) and dt == pytest.approx(0.005)
            expected = plain.over(numpy_of(samples), {k: x.numpy() for k, x in carry.items()}, dt=dt)
            assert extras["cost"].shape == (WORLDS, len(fresh.constraint_names))
            np.testing.assert_allclose(extras["cost"].numpy(), expected.cost, atol=1e-6)
            np.testing.assert_allclose(extras["margin"].numpy(), expected.margin, rtol=1e-5, atol=1e-5)
            total += expected.cost.sum(axis=0)
    finally:
        fresh.constraints = plain
    cost = dict(zip(plain.names, total, strict=True))
    assert cost["table_clearance"] > 0 and cost["table_force"] > 0, cost  # the hand was pressed on the table


def test_a_world_that_is_not_finite_is_restarted_and_harms_no_other(fresh):
    before = fresh.broken
    q = fresh.plant.q.clone()
    q[1, 3] = float("nan")
    fresh.plant.arm.write_joint_position_to_sim_index(position=q.to(torch.float32), env_ids=torch.arange(WORLDS).int())
    obs, reward, terminated, truncated, extras = fresh.step(zeros(fresh))
    assert extras["broken"].tolist() == [False, True, False, False] and fresh.broken == before + 1
    assert truncated.tolist() == [False, True, False, False] and not terminated.any()
    for x in (obs["policy"], reward, extras["cost"]):
        assert bool(torch.isfinite(x).all())
    settle(fresh, 2)
    assert fresh.broken == before + 1 and bool(torch.isfinite(fresh.plant.q).all())


def test_equal_seeds_give_equal_runs(fresh):
    def run():
        fresh.reset(seed=11)
        rng, out = np.random.default_rng(4), []
        for _ in range(4):
            action = torch.as_tensor(rng.uniform(-1, 1, (WORLDS, fresh.io.action_dim)), dtype=torch.float32)
            obs, reward, _, _, extras = fresh.step(action)
            out += [obs["policy"].clone(), reward.clone(), extras["cost"].clone()]
        return out

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_an_episode_ends_by_time_and_the_next_one_starts_at_rest(fresh):
    fresh.episode_length_buf[2] = fresh.max_steps - 1
    obs, _, terminated, truncated, extras = fresh.step(zeros(fresh))
    assert truncated.tolist() == [False, False, True, False] and not terminated.any()
    assert not torch.equal(extras["terminal_obs"][2], obs["policy"][2])
    assert float(fresh.plant.qd[2].abs().max()) == 0.0 and float(fresh.plant.qd[0].abs().max()) > 0.0


@pytest.mark.parametrize("action", [torch.full((WORLDS, 8), float("nan")), torch.zeros(WORLDS, 7)])
def test_bad_actions_are_refused_before_anything_moves(fresh, action):
    before = fresh.plant.q.clone()
    with pytest.raises(CommandRefused):
        fresh.step(action)
    assert torch.equal(before, fresh.plant.q)
