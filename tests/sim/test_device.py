"""Laws of what a device's step is made of, without physics: each part does what its twin for numpy does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import warp as wp

from palmar.safety.types import ConfigError, Measurement
from palmar.sim import scene
from palmar.sim.device.constraints import constraints_on
from palmar.sim.device.host_reads import HostRead, no_host_read
from palmar.sim.device.lift import Lift
from palmar.sim.device.reach import Reach
from palmar.sim.device.starts import Pool, with_constants
from palmar.sim.device.tracker import Tracker as DeviceTracker
from palmar.sim.interface import Seen, View
from palmar.sim.tasks.lift import BLOCKS, LiftConfig, LiftTask
from palmar.sim.tasks.reach import ReachConfig, ReachTask
from palmar.sim.tracker import Tracker, TrackerConfig

B = 6
TASKS = {"reach": (ReachTask, ReachConfig, Reach), "lift": (LiftTask, LiftConfig, Lift)}


def tensor(x):
    return torch.as_tensor(np.asarray(x))


def tensors(value):
    fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
    return replace(value, **{name: tensor(x) for name, x in fields.items() if isinstance(x, np.ndarray)})


def walk(name, robot, steps=5):
    """The task for numpy and its twin along the same readings: (numpy's, twin's) of everything either computes."""
    make_task, make_config, make_twin = TASKS[name]
    task = make_task(make_config())
    rng = np.random.default_rng(3)
    start = task.start(rng, robot, B)
    io, twin = task.io(robot, B), make_twin(task.config, robot, B, "cpu")
    io.reset(np.arange(B), start.q)
    twin.reset(torch.ones(B, dtype=torch.bool), tensor(start.q))
    poses, q = start.poses.copy(), start.q.copy()
    for k in range(steps):
        q = q + rng.normal(0, 0.01, q.shape)
        if (
            name == "lift"
        ):  # the hand is over a block that is turned and lifted, so that every term of the reward is met
            poses[:, 0, :3] = io.kinematics.hand(q).tips.mean(axis=1) + rng.normal(0, 0.01, (B, 3))
            poses[..., 3:] = rng.normal(size=poses[..., 3:].shape)
            poses[..., 3:] /= np.linalg.norm(poses[..., 3:], axis=-1, keepdims=True)
        seen = Seen(q, rng.normal(size=q.shape), poses[..., :3], poses[..., 3:], start.goal)
        obs, (twins, hand) = io.observe(seen), twin.observe(tensors(seen))
        yield f"observation {k}", obs, twins, 2e-6
        view = View(np.zeros(B), q, seen.qd, io.hand, io.kinematics.tip_radius, *seen_poses(poses), start.goal, seen)
        on_device = replace(tensors(replace(view, hand=None, samples=None)), hand=hand)
        action = rng.uniform(-1.5, 1.5, (B, io.action_dim))
        yield f"reward {k}", task.reward(view, action), twin.reward(on_device, tensor(action)), 1e-9
        yield f"achieved {k}", task.achieved(view), twin.achieved(on_device), 0
        yield f"failed {k}", task.failed(view), twin.failed(on_device), 0
        yield f"target {k}", io.joint_target(action), twin.joint_target(tensor(action)), 1e-9
        if k == 2:
            mask = np.array([True, False] * (B // 2))
            io.reset(np.flatnonzero(mask), start.q[mask])
            twin.reset(tensor(mask), tensor(start.q))


def seen_poses(poses):
    return poses[..., :3], poses[..., 3:]


@pytest.mark.parametrize("name", TASKS)
def test_a_twin_computes_what_its_task_computes(name, robot):
    varied = {}
    for what, ours, twins, tolerance in walk(name, robot):
        np.testing.assert_allclose(np.asarray(twins), ours, atol=tolerance, rtol=0, err_msg=f"{name}: {what}")
        varied.setdefault(what.split()[0], []).append(np.ravel(ours).astype(float))
    assert all(np.std(np.concatenate(varied[what])) > 0.01 for what in ("observation", "reward", "target"))


@pytest.mark.parametrize("name", TASKS)
def test_a_twin_reads_nothing_from_the_host(name, robot):
    _, make_config, make_twin = TASKS[name]
    twin = make_twin(make_config(), robot, B, "cpu")
    zeros = torch.zeros
    goal = torch.zeros(B, dtype=torch.int64) if name == "lift" else zeros(B, 7, dtype=torch.float64)
    position, mask = zeros(B, len(BLOCKS), 3, dtype=torch.float64), torch.ones(B, dtype=torch.bool)
    seen = Seen(twin.target, twin.target, position, zeros(B, len(BLOCKS), 4, dtype=torch.float64), goal)
    action = zeros(B, twin.action_dim, dtype=torch.float64)
    with no_host_read():
        twin.reset(mask, twin.target.clone())
        _, hand = twin.observe(seen)
        radius = twin.kinematics.tip_radius
        view = View(position[:, 0, 0], seen.q, seen.qd, hand, radius, position, seen.quaternion, goal, None)
        twin.reward(view, action), twin.achieved(view), twin.failed(view), twin.joint_target(action)


X = torch.arange(4.0)
READS = {
    "item": lambda: X[0].item(),
    "bool": lambda: bool(X.any()),
    "if": lambda: 1 if X[1] > 0 else 0,
    "float": lambda: float(X[0]),
    "numpy": lambda: X.numpy(),
    "list": lambda: X.tolist(),
    "cpu": lambda: X.cpu(),
    "nonzero": lambda: X.nonzero(),
    "where": lambda: torch.where(X > 1),
    "where with a number": lambda: torch.where(X > 1, X, 0.0),
    "mask": lambda: X[X > 1],
    "put by mask": lambda: X.clone().__setitem__(X > 1, 0.0),
    "select": lambda: torch.masked_select(X, X > 1),
    "unique": lambda: torch.unique(X),
    "solve": lambda: torch.linalg.solve(torch.eye(2), torch.ones(2)),
    "from numbers": lambda: torch.as_tensor([1.0, 2.0]),
    "new": lambda: torch.tensor([1.0]),
    "warp's numpy": lambda: wp.zeros(2, dtype=float, device="cpu").numpy(),
    "warp's wait": lambda: wp.synchronize(),
}


@pytest.mark.parametrize("name", READS)
def test_the_guard_sees_every_kind_of_host_read(name):
    READS[name]()
    with pytest.raises(HostRead), no_host_read():
        READS[name]()
    READS[name]()  # and lets go again


def test_the_guard_lets_masks_and_gathers_pass():
    with no_host_read():
        torch.where(X > 1, X, -X).index_select(0, X.long()).masked_fill_(X > 2, 0.0)


def sample(robot, rng, steps=4):
    shape = (steps, B)
    n = robot.n
    full = [rng.normal(0, 1.0, (*shape, n)) for _ in range(7)]
    full[0] = rng.uniform(robot.limits.q_min - 0.05, robot.limits.q_max + 0.05, (*shape, n))
    full[3] = rng.uniform(robot.limits.q_min - 0.05, robot.limits.q_max + 0.05, (*shape, n))
    full[5], full[6], full[2] = 9 * full[5], 4000 * full[6], 60 * full[2]
    clearances = rng.uniform(-0.01, 0.02, (2, *shape))
    return Measurement(
        np.zeros(shape), *full, rng.uniform(-0.2, 1.0, (*shape, 3)), *clearances, rng.uniform(0, 40, (*shape, 5)),
        rng.uniform(0, 0.2, (*shape, 3, 3)), np.zeros((*shape, 3, 4)),
    )  # fmt: skip


def test_every_constraint_costs_the_same_over_tensors(robot, constraints):
    rng, seen = np.random.default_rng(0), np.zeros(len(constraints.names))
    held = constraints_on(constraints, "cpu")
    m = sample(robot, rng)
    carry, twins = constraints.start(m.at(0)), held.start(tensors(m).at(0))
    for _ in range(3):
        m = sample(robot, rng)
        ours = constraints.over(m, carry, dt=0.005)
        on_device = tensors(m)
        with no_host_read():
            other = held.over(on_device, twins, dt=0.005)
        np.testing.assert_allclose(np.asarray(other.cost), ours.cost, atol=1e-12)
        np.testing.assert_allclose(np.asarray(other.margin), ours.margin, atol=1e-9)
        carry, twins, seen = ours.carry, other.carry, seen + ours.cost.sum(axis=0)
    assert np.all(seen > 0)  # every channel was met


def test_a_clean_tracker_delivers_what_its_twin_delivers():
    config = TrackerConfig(rate=15.0, noise=0.0, angle_noise=0.0, delay=0.06, dropout=0.0)
    ours = Tracker(config, batch=B, objects=2, rng=np.random.default_rng(0))
    twin = DeviceTracker(config, batch=B, objects=2, generator=torch.Generator().manual_seed(0))
    position, quaternion = np.zeros((B, 2, 3)), np.tile([1.0, 0, 0, 0], (B, 2, 1))
    ours.reset(np.arange(B), np.zeros(B), position, quaternion)
    twin.reset(torch.ones(B, dtype=torch.bool), tensor(position), tensor(quaternion))
    twin._next.copy_(tensor(ours._next))  # phases are random
    changes = 0
    for k in range(1, 40):
        t = np.full(B, 0.05 * k)
        position = position + 0.01
        before = ours.position.copy()
        ours.update(t, position, quaternion)
        true = tensor(t), tensor(position), tensor(quaternion)
        with no_host_read():
            twin.update(*true)
        np.testing.assert_allclose(np.asarray(twin.position), ours.position, atol=1e-12)
        np.testing.assert_allclose(np.asarray(twin.quaternion), ours.quaternion, atol=1e-12)
        changes += int((ours.position != before).any())
    assert 20 < changes < 40  # frames come at 15 Hz, steps at 20 Hz


def test_a_noisy_tracker_has_the_noise_and_dropout_it_was_given():
    config = TrackerConfig(rate=200.0, noise=0.002, angle_noise=0.02, delay=0.0, dropout=0.25)
    batch = 400
    twin = DeviceTracker(config, batch=batch, objects=1, generator=torch.Generator().manual_seed(1))
    zero, one = torch.zeros(batch, 1, 3, dtype=torch.float64), torch.zeros(batch, 1, 4, dtype=torch.float64)
    one[..., 0] = 1.0
    twin.reset(torch.ones(batch, dtype=torch.bool), zero, one)
    errors, angles, fresh = [], [], []
    for k in range(1, 21):
        before = twin.position.clone()
        twin.update(torch.full((batch,), 0.05 * k, dtype=torch.float64), zero, one)
        fresh.append((twin.position != before).any(dim=-1).double().mean().item())
        errors.append(twin.position.numpy())
        angles.append(2 * twin.quaternion[..., 1:].numpy())
    assert np.std(errors) == pytest.approx(0.002, rel=0.05)
    assert np.std(angles) == pytest.approx(0.02, rel=0.05)
    assert np.mean(fresh) == pytest.approx(0.75, abs=0.02)


@pytest.fixture(scope="module")
def blocks():
    return scene.compose(BLOCKS)[0]


def test_worlds_take_starts_in_turn_and_others_keep_theirs(robot, blocks):
    task = LiftTask(LiftConfig())
    pool = Pool(task, robot, blocks, size=7, first=4, rng=np.random.default_rng(0), device="cpu")
    goals = np.asarray(pool._rows["q"])[:, 0].copy()
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(goals[:4], task.start(rng, robot, 4).q[:, 0])  # drawn as VectorEnv draws them
    everyone, odd = torch.ones(4, dtype=torch.bool), torch.tensor([False, True, False, True])
    with no_host_read():
        first, second = pool.take(everyone)["q"], pool.take(odd)["q"]
        third = pool.take(everyone)["q"]
    np.testing.assert_array_equal(np.asarray(first)[:, 0], goals[[0, 1, 2, 3]])
    np.testing.assert_array_equal(np.asarray(second)[[1, 3], 0], goals[[4, 5]])
    np.testing.assert_array_equal(np.asarray(third)[:, 0], goals[[6, 0, 1, 2]])
    pool.renew(3)
    assert not np.isin(np.asarray(pool._rows["q"])[:3, 0], goals).any()
    np.testing.assert_array_equal(np.asarray(pool._rows["q"])[3:, 0], goals[3:])


def test_constants_of_a_changed_mass_are_those_mujoco_derives(blocks):
    import mujoco

    body = blocks.body("red_cube").id
    mass = np.tile(blocks.body_mass, (2, 1))
    mass[1, body] *= 3
    fields = with_constants(blocks, {"body_mass": mass})
    spec = scene.scene_spec(BLOCKS)
    spec.geom("red_cube_geom").mass *= 3
    heavy = spec.compile()
    mujoco.mj_setConst(heavy, mujoco.MjData(heavy))
    np.testing.assert_allclose(fields["body_subtreemass"][1], heavy.body_subtreemass, rtol=1e-6)
    dof = heavy.joint("red_cube_free").dofadr[0]
    np.testing.assert_allclose(fields["dof_invweight0"][1, dof], heavy.dof_invweight0[dof], rtol=1e-6)
    assert fields["dof_invweight0"][0, dof] != fields["dof_invweight0"][1, dof]


def test_a_pool_smaller_than_the_batch_is_refused(robot, blocks):
    from palmar.sim.device.env import DeviceEnv, twin
    from palmar.sim.engines.warp_config import WarpConfig

    with pytest.raises(ConfigError, match="4 worlds, got 3"):
        DeviceEnv(LiftTask(LiftConfig()), robot, None, model=blocks, num_envs=4, config=WarpConfig("cpu", pool=3))
    strange = LiftTask(LiftConfig())
    strange.name = "juggle"
    with pytest.raises(ConfigError, match="'juggle' is not written for a device; .*lift.*reach"):
        twin(strange)
