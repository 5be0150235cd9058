"""Laws of engine ``mujoco_warp`` and the environment around it, on Warp's CPU device; task reach unless said.

The first step compiles kernels: half a minute of one core where no cache is at hand (``WARP_CACHE_PATH``), once.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from palmar.safety.constraints import Constraint
from palmar.safety.types import CommandRefused, ConfigError
from palmar.sim.device.env import make_device_env
from palmar.sim.device.host_reads import no_host_read
from palmar.sim.engines.mujoco_warp import SimulationOverflow, WarpEngine, device_of
from palmar.sim.engines.warp_config import WarpConfig
from palmar.sim.env import make_env
from palmar.sim.parity import load_tolerances
from palmar.sim.robots import scene_of
from palmar.sim.tasks import find
from palmar.sim.tasks.lift import LiftConfig, LiftTask
from palmar.sim.tasks.reach import ReachConfig, ReachTask
from palmar.sim.tracker import TrackerConfig

B = 4
CLEAN = TrackerConfig(rate=1000.0, noise=0.0, angle_noise=0.0, delay=0.0, dropout=0.0)
CPU = WarpConfig(device="cpu")


def reach(robot, constraints, *, steps=60, config=CPU, **kwargs):
    task = ReachTask(ReachConfig(max_steps=steps, tracker=CLEAN))
    return make_device_env(task, robot, constraints, num_envs=B, config=config, **kwargs)


@pytest.fixture(scope="module")
def env(robot, constraints):
    return reach(robot, constraints, numpy=False)


def roll(env, steps, seed=5):
    rng = np.random.default_rng(seed)
    return [env.step(rng.uniform(-1, 1, (B, env.action_dim))) for _ in range(steps)]


def flat(step):
    return [np.asarray(x) for x in (step.obs, step.reward, step.cost, step.truncated, *step.info.values())]


def test_no_number_is_read_by_the_host_inside_a_step(env):
    """Neither while it is recorded, nor replayed, nor where episodes end: a restart is part of the step."""
    env.reset(0)
    env.engine._graph, ended = None, []
    for age in (0, 0, env.max_steps - 1):
        env._age.fill_(age)
        with no_host_read():
            out = env.control_step()
        ended.append(bool(out["truncated"].all()))
    assert ended == [False, False, True] and (env._age == 0).all() and env.engine._graph is not None


def tensors_of(value, seen=None):
    """Every tensor that an object keeps, by the path to it."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, (str, int, float, np.ndarray, type)):
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        yield "", value
        return
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    if type(value).__module__.startswith("palmar"):
        inside = vars(value).items() if hasattr(value, "__dict__") else ()
    for name, x in inside:
        yield from ((f"{name}.{path}", t) for path, t in tensors_of(x, seen))


def test_what_a_step_carries_to_the_next_stays_where_it_is(env):
    """A recorded step writes where it wrote when it was recorded: whatever moves would be read stale."""
    env.reset(0)
    roll(env, 1)
    before = {path: t.data_ptr() for path, t in tensors_of(env)}
    env._age.fill_(env.max_steps - 1)
    roll(env, 2)
    after = {path: t.data_ptr() for path, t in tensors_of(env)}
    assert len(before) > 60 and after == before


def test_a_recorded_step_is_the_step(robot, constraints, env):
    env.reset(3)
    recorded = roll(env, 3)
    plain = reach(robot, constraints, numpy=False, seed=3, config=replace(CPU, graph=False))
    assert env.engine._graph is not None
    for a, b in zip(recorded, roll(plain, 3), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))
    assert plain.engine._graph is None


def test_the_same_seed_is_bit_identical_and_another_is_not(env):
    runs = []
    for seed in (7, 7, 8):
        env.reset(seed)
        runs.append(roll(env, 3)[-1])
    assert all(np.array_equal(x, y) for x, y in zip(flat(runs[0]), flat(runs[1]), strict=True))
    assert not np.array_equal(flat(runs[0])[0], flat(runs[2])[0])


def test_steps_from_equal_starts_are_those_of_engine_mujoco(robot, constraints, env):
    """Observation, reward, every margin and every cost, within the tolerances of ``configs/parity.yaml``."""
    allowed = load_tolerances()["environment"]
    ours = make_env(ReachTask(ReachConfig(tracker=CLEAN)), robot, constraints, num_envs=B)
    ours.reset(0), env.reset(0)
    cost, rng, moved = np.zeros((2, B, len(constraints.names))), np.random.default_rng(1), 0.0
    for k in range(1, 21):
        action = rng.uniform(-1, 1, (B, 7))
        action[::2, 1] = -1.0  # backwards in half the worlds, out of the workspace
        a, b = ours.step(action), env.step(action)
        cost += np.stack([a.cost, np.asarray(b.cost)])
        if k in (1, 5, 20):
            within(a.obs, b.obs, allowed["observation"][k], f"observation {k}")
            within(a.reward, b.reward, allowed["reward"][k], f"reward {k}")
            for i, name in enumerate(constraints.names):
                within(a.info["margin"][:, i], b.info["margin"][:, i], allowed[f"margin/{name}"][k], f"{name} {k}")
                within(cost[0, :, i], cost[1, :, i], allowed["cost"][k], f"cost of {name} {k}")
        moved = max(moved, float(np.abs(a.obs[:, 7:14]).max()))
    env.check()
    assert moved > 0.3 and cost[0, :, constraints.names.index("workspace")].max() > 0.1


def within(a, b, tolerance, what):
    np.testing.assert_allclose(np.asarray(b), a, atol=tolerance, rtol=0, err_msg=what)


def test_a_restart_touches_only_the_worlds_it_names(env):
    env.reset(0)
    roll(env, 2)
    e, mask = env.engine, torch.tensor([False, True, False, False])
    before = [x.clone() for x in (e.qpos, e.qvel, e.ctrl, e.time, e._warmstart)]
    e.reset(mask, e.qpos + 0.1, torch.zeros_like(e.qvel))
    after = (e.qpos, e.qvel, e.ctrl, e.time, e._warmstart)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[~mask], new[~mask]) and not torch.equal(old[mask], new[mask])
    assert torch.equal(e.ctrl[1].index_select(0, e.samples.act).double(), e.q[1])  # it stands still


def test_a_world_that_breaks_is_restarted_and_counted_and_the_others_never_know(env):
    env.reset(0)
    whole = roll(env, 4)
    env.reset(0)
    roll(env, 1)
    count = int(env.broken)
    env.engine.qvel[2] = torch.nan
    rng = np.random.default_rng(5)
    rng.uniform(-1, 1, (B, 7))
    broken = [env.step(rng.uniform(-1, 1, (B, 7))) for _ in range(3)]
    others = [0, 1, 3]
    for a, b in zip(whole[1:], broken, strict=True):
        assert all(np.array_equal(x[others], y[others]) for x, y in zip(flat(a), flat(b), strict=True))
    first = broken[0]
    assert first.info["broken"].tolist() == [False, False, True, False] and bool(first.truncated[2])
    assert all(np.isfinite(x).all() for s in broken for x in flat(s))
    assert int(env.broken) == count + 1
    assert torch.isnan(env.wreck[2, env.engine.qpos.shape[1] :]).all()  # the state it broke from was kept
    assert torch.isfinite(env.wreck[2, : env.engine.qpos.shape[1]]).all()
    assert not broken[1].info["broken"].any()


def test_a_full_buffer_is_an_error_and_not_a_printed_line(robot, constraints, capfd):
    small = reach(robot, constraints, config=replace(CPU, njmax=20))  # 23 joints with friction need a row each
    roll(small, 1)
    with pytest.raises(SimulationOverflow, match=r"NEFC in 4 of 4 worlds .*njmax=20"):
        small.check()
    small.check()  # told once
    assert "overflow" not in capfd.readouterr().out


def test_fields_differ_per_world_and_change_only_theirs(robot, constraints):
    """Softer servos in one world: its joints lag, the others' do not."""
    plain, own = reach(robot, constraints, numpy=False), reach(robot, constraints, numpy=False)
    gain, bias = (own.engine.field(f"actuator_{name}prm").clone() for name in ("gain", "bias"))
    gain[1, :, 0] *= 0.5
    bias[1, :, 1] *= 0.5
    mask = torch.ones(B, dtype=torch.bool)
    own.engine.set_fields(mask, {"actuator_gainprm": gain, "actuator_biasprm": bias})
    a, b = roll(plain, 2)[-1], roll(own, 2)[-1]
    assert torch.equal(a.obs[[0, 2, 3]], b.obs[[0, 2, 3]]) and not torch.allclose(a.obs[1], b.obs[1], atol=1e-3)
    with pytest.raises(ConfigError, match="before the first step"):
        own.engine.field("dof_damping")


def test_disturbances_push_until_they_are_taken_away(env):
    env.reset(0)
    still = env.step(torch.zeros(B, 7)).obs[:, :7].clone()
    env.reset(0)
    torque = torch.zeros(B, env.robot.n)
    torque[1, 0] = 20.0
    env.engine.disturb(None, torque)
    pushed = env.step(torch.zeros(B, 7)).obs[:, :7].clone()
    env.engine.disturb(None, None)
    assert torch.equal(still[[0, 2, 3]], pushed[[0, 2, 3]]) and pushed[1, 0] - still[1, 0] > 1e-3
    env.reset(0)
    again = env.step(torch.zeros(B, 7)).obs[:, :7]
    assert torch.equal(again, still)


@pytest.mark.parametrize("bad", [np.zeros((3, 7)), np.zeros((B, 8)), np.full((B, 7), np.inf)])
def test_bad_actions_are_refused_and_nothing_moves(env, bad):
    env.reset(0)
    before = env.engine.qpos.clone()
    with pytest.raises(CommandRefused):
        env.step(bad)
    assert torch.equal(before, env.engine.qpos)


def test_what_the_engine_cannot_do_is_refused_by_name(robot, constraints, env):
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="'cuda'.*no NVIDIA GPU"):
            device_of("cuda")
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda"):
        WarpConfig(device="tpu")
    with pytest.raises(ConfigError, match="njmax"):
        WarpConfig(njmax=0)
    with pytest.raises(ConfigError, match="no model field 'geom_colour'"):
        env.engine.field("geom_colour")
    row = Constraint(
        "corner", "keep_out", {"region": 0, "lower": [0, 0, 0], "upper": [1, 1, 1], "limit": 0.0}, "state", "measured",
        "none", "hard row", 0.0, "s",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="measures nothing for .*keep_out"):
        reach(robot, replace(constraints, constraints=(row,)))


def test_numbers_go_in_and_out_as_numpy_where_asked(robot, constraints, env):
    env.reset(0)
    theirs = copy.copy(env)
    theirs.numpy = True
    first = theirs.step(np.zeros((B, 7), np.float32))
    assert all(isinstance(x, np.ndarray) for x in (first.obs, first.reward, first.cost, first.truncated))
    assert first.obs.dtype == np.float32 and first.cost.shape == (B, len(constraints.names))
    kept = first.obs.copy()
    theirs.step(np.ones((B, 7)))
    assert np.array_equal(first.obs, kept)  # what was given away is not overwritten


def test_costs_off_changes_nothing_else(robot, constraints, env):
    env.reset(4)
    off = reach(robot, None, seed=4)
    for a, b in zip(roll(env, 3), roll(off, 3), strict=True):
        assert np.array_equal(np.asarray(a.obs), b.obs) and np.array_equal(np.asarray(a.reward), b.reward)
        assert b.cost.shape == (B, 0)


@pytest.mark.slow
def test_lift_from_equal_starts_is_that_of_engine_mujoco(robot, constraints):
    """Blocks at rest and a hand that comes down on them; contact is compared by ``palmar bench parity``."""
    task = LiftTask(LiftConfig(tracker=CLEAN))
    ours = make_env(task, robot, constraints, num_envs=B)
    env = make_device_env(task, robot, constraints, num_envs=B, config=CPU)
    ours.reset(0), env.reset(0)
    for name in ("geom_friction", "body_mass", "body_inertia", "dof_invweight0"):
        own = ours.engine.batch.expanded(name)
        np.testing.assert_allclose(env.engine.field(name).numpy().reshape(own.shape), own, rtol=1e-5, err_msg=name)
    action = np.zeros((B, 8))
    action[:, 2] = -1.0
    for _ in range(5):
        a, b = ours.step(action), env.step(action)
    np.testing.assert_allclose(b.reward, a.reward, atol=1e-3)
    np.testing.assert_allclose(env.engine.objects()[0].numpy(), ours.engine.objects()[0], atol=1e-4)
    env.check()


@pytest.mark.parametrize("name", ["coworker", "hazards"])
def test_tasks_that_a_device_does_not_know_are_refused_with_those_it_knows(robot, constraints, name):
    found = find.load(name)
    with pytest.raises(ConfigError, match=r"'lift', 'reach'"):
        make_device_env(found.task(found.config()), robot, constraints, num_envs=1, config=CPU)


def test_people_are_refused_where_they_would_be_measured_as_absent(robot):
    found = find.load("coworker")
    task = found.task(found.config())
    model = scene_of(robot, task.furnish)
    with pytest.raises(ConfigError, match="people"):
        WarpEngine(
            model, robot, objects=tuple(task.objects), nworld=1, substeps=1, config=CPU,
            supply=frozenset({"speed_separation"}),
        )  # fmt: skip


@pytest.mark.gpu
def test_a_whole_step_is_one_graph_on_a_gpu(robot, constraints):
    """Recorded and not, the same numbers within what unordered sums leave; episodes end on the way."""
    settings = [WarpConfig(device="cuda", graph=graph) for graph in (True, False)]
    both = [reach(robot, constraints, steps=6, config=config, seed=2) for config in settings]
    for a, b in zip(*(roll(env, 12) for env in both), strict=True):
        assert np.array_equal(a.truncated, b.truncated)
        np.testing.assert_allclose(a.reward, b.reward, atol=1e-3)
    for env in both:
        env.check()
