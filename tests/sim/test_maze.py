"""The blind maze: layouts, softness, touch and the two ways an episode ends."""

import itertools
from typing import Any

import numpy as np
import pytest

from palmar.safety.types import ConfigError
from palmar.sim.env import make_env
from palmar.sim.interface import Seen
from palmar.sim.tasks import maze_layout as layout
from palmar.sim.tasks.maze import MazeConfig, MazeTask
from palmar.sim.tasks.maze_impedance import CartesianStiffness
from palmar.sim.tasks.maze_io import PEG_RADIUS, STIFF, STIFF_RATIO, MazeIO
from palmar.sim.tasks.maze_oracle import MazeOracle, StraightOn


def make(robot, b, *, seed=0, **config) -> Any:
    return make_env(MazeTask(MazeConfig(**config)), robot, None, num_envs=b, seed=seed, nthread=1)


def every_layout():
    slots = np.array(list(itertools.product(range(layout.SLOTS), repeat=layout.BAFFLES)))
    slants = np.array(list(itertools.product(range(len(layout.SLANTS)), repeat=layout.BAFFLES)))
    return np.repeat(slots, len(slants), axis=0), np.tile(slants, (len(slots), 1))


def test_no_layout_is_in_both_splits_and_moving_one_wall_by_a_step_changes_the_checksum():
    drawn = {}
    for split in layout.SPLITS:
        slot, slant = layout.draw(np.random.default_rng(0), 500, split)
        drawn[split] = set(map(tuple, np.concatenate([slot, slant], axis=1)))
    assert not drawn["train"] & drawn["test"]
    slot, slant = every_layout()
    of = layout.split_of(slot, slant)
    assert 0.15 < of.mean() < 0.25
    neighbours = slot.copy()
    neighbours[:, 1] = np.minimum(slot[:, 1] + 1, layout.SLOTS - 1)
    moved = (neighbours != slot).any(axis=1)
    assert not (of[moved] & layout.split_of(neighbours[moved], slant[moved])).any()


def test_the_peg_fits_through_every_gap_of_every_layout():
    slot, slant = every_layout()
    walls = layout.build(slot, slant, gap=0.05)
    for b in range(layout.BAFFLES):
        x = layout.FIRST + b * layout.SPACING + np.linspace(-0.012, 0.012, 9)
        y = layout.gap_y(slot[:, b])
        points = np.stack([np.tile(x, (len(y), 1)), np.tile(y[:, None], (1, len(x)))], axis=-1)
        assert layout.inside(points, walls).min() > PEG_RADIUS + 0.005
        beside = np.stack([np.full(len(y), layout.FIRST + b * layout.SPACING), y + 0.03], axis=-1)[:, None]
        assert layout.inside(beside, walls).max() < PEG_RADIUS  # and there is a wall beside it


def test_episodes_start_clear_of_walls_with_the_peg_upright_and_the_same_goal(robot):
    task = MazeTask(MazeConfig(split="test"))
    start = task.start(np.random.default_rng(3), robot, 40)
    slot, slant = layout.draw(np.random.default_rng(3), 40, "test")
    walls = layout.build(slot, slant, gap=0.05)
    io = MazeIO(robot, 40)
    io.reset(np.arange(40), start.q)
    assert layout.inside(io.peg[:, None, :2], walls).min() > PEG_RADIUS
    assert layout.inside(start.poses[..., :2], walls).min() > 0.0155  # the box's half diagonal
    np.testing.assert_allclose(io.peg[:, 2], 0.02, atol=1e-4)
    assert len(np.unique(start.goal, axis=0)) == 1  # what the policy is told says nothing of the layout


def held(robot, at, stiffness):
    """Worlds without walls, robots at rest with the peg over ``at``, softened; and their joint targets."""
    b = len(at)
    env = make(robot, b)
    model = env.engine.model
    body = np.repeat(model.body_pos[None], b, 0)
    body[:, [model.body(w).id for w in layout.WALLS], 2] = -1.0
    env.engine.set_fields(np.arange(b), {"body_pos": body})
    _, hanging, rest = env.task._prepare(robot)
    q = hanging.over(np.tile(rest, (b, 1)), np.array(at))
    qpos = np.tile(model.qpos0, (b, 1))
    qpos[:, [model.joint(j).qposadr[0] for j in robot.joints]] = q
    env.engine.reset(np.arange(b), qpos, np.zeros((b, model.nv)))
    env.io.reset(np.arange(b), q)
    env.io._ratio = np.array(stiffness) / STIFF
    env.engine.impedance(*env.io.impedance)
    return env, q


def pushed(env, q, force):
    """Displacement of the peg's end after two seconds of a force on it [m], (B, 2), and the last sample."""
    e = env.engine
    body = e.model.body("peg").id
    wrench = np.zeros((len(q), e.model.nbody, 6))
    wrench[:, body, :2] = force
    env.io.hand = env.io.kinematics.hand(q)
    centre = e.batch.bind("xipos")
    e.batch.forward()
    arm = env.io.peg - centre[:, body]
    wrench[:, body, 3:] = np.cross(arm, wrench[:, body, :3])
    before = env.io.peg[:, :2].copy()
    e.disturb(wrench, None)
    hold = np.tile(q, (400, 1, 1))
    samples = e.advance(hold, 0 * hold, 0 * hold, 0 * hold)
    env.io.hand = env.io.kinematics.hand(e.q)
    return env.io.peg[:, :2] - before, samples.at(-1)


def test_a_push_moves_the_peg_by_force_over_stiffness(robot):
    """Equal stiffness, in the corridor's middle: within 8 %, of which the friction left makes half."""
    at = [(0.5, 0.0)] * 4 + [(0.42, 0.0), (0.62, 0.0)]
    k = np.array([[200.0, 200.0]] * 2 + [[600.0, 600.0]] * 2 + [[300.0, 300.0]] * 2)
    force = np.array([[6.0, 0.0], [0.0, 6.0], [15.0, 0.0], [0.0, -15.0], [8.0, 0.0], [0.0, 8.0]])
    env, q = held(robot, at, k)
    moved, _ = pushed(env, q, force)
    along = np.abs(force).argmax(axis=1)
    rows = np.arange(len(at))
    ratio = moved[rows, along] / (force / k)[rows, along]
    np.testing.assert_allclose(ratio, 1.0, atol=0.08)
    assert np.all(np.abs(moved[rows, 1 - along]) < 0.12 * np.abs(moved[rows, along]))


def test_five_to_one_at_the_corners_is_held_apart(robot):
    """Where the law ends: joints that are soft one by one cannot be soft along any axis at any place."""
    at = [(0.42, 0.10), (0.62, -0.10), (0.42, -0.10), (0.62, 0.10)]
    env, q = held(robot, at, np.array([[150.0, 750.0]] * 4))
    x, _ = pushed(env, q, np.array([[6.0, 0.0]] * 4))
    env, q = held(robot, at, np.array([[150.0, 750.0]] * 4))
    y, _ = pushed(env, q, np.array([[0.0, 6.0]] * 4))
    got = np.stack([6.0 / x[:, 0], 6.0 / y[:, 1]], axis=1)
    np.testing.assert_allclose(got, [[150.0, 750.0]] * 4, rtol=0.5)
    assert np.all(got[:, 1] > 3.0 * got[:, 0]), got


def test_the_wrench_is_the_push_turned_round_and_a_wall_reads_positive(robot):
    env, q = held(robot, [(0.5, 0.0)], np.array([[400.0, 400.0]]))
    last: Any = pushed(env, q, np.array([[-10.0, 5.0]]))[1]
    np.testing.assert_allclose(last.wrench[0, :2], [10.0, -5.0], rtol=0.1)  # what the hand exerts; the peg tilts
    # Moved to the palm's origin, 15 cm above: torque = (end - palm) x force.
    arm = env.io.peg[0] - env.io.hand.palm[0]
    np.testing.assert_allclose(last.wrench[0, 3:], np.cross(arm, [10.0, -5.0, 0.0]), atol=0.1)


def test_every_joint_stiffness_is_positive_and_at_most_the_servos_own(robot):
    rng = np.random.default_rng(0)
    soft = CartesianStiffness(robot)
    env, q = held(robot, [(x, y) for x in (0.4, 0.5, 0.66) for y in (-0.12, 0.0, 0.12)], np.full((9, 2), STIFF))
    most = env.io._stiffness._servo
    for _ in range(20):
        wanted = STIFF * STIFF_RATIO ** rng.uniform(-1, 1, (9, 2))
        k, d = soft.joints(env.io.hand.jacobian, wanted)
        assert (k > 0).all() and (k <= most * (1 + 1e-9)).all() and (d > 0).all()
    with pytest.raises(ConfigError, match="stiffness"):
        soft.joints(env.io.hand.jacobian, np.zeros((9, 2)))


def test_walls_stand_where_the_layout_of_their_own_world_says(robot):
    """Straight on: where the gap is in the way the peg passes the first wall, elsewhere it is stopped at its face."""
    env = make(robot, 12, seed=5, force=1e6)
    peg = env.io.peg[:, :2].copy()
    ends = env.engine.batch.expand("body_pos")[:, [env.engine.model.body(w).id for w in layout.WALLS]]
    low, high = env.engine.batch.expand("geom_size")[:, [env.engine.model.geom(w).id for w in layout.WALLS[3:5]], 1].T
    gap = 0.5 * (ends[:, 3, 1] + low + ends[:, 4, 1] - high)  # slants move it by less than 1 mm
    action = np.tile([0.5, 0.0, -1.0, 0.5], (12, 1))
    for _ in range(30):
        env.step(action)
    free = np.abs(peg[:, 1] - gap) < 0.025 - PEG_RADIUS - 0.003
    shut = np.abs(peg[:, 1] - gap) > 0.025 + PEG_RADIUS
    assert shut.any() and (env.io.peg[shut, 0] < layout.FIRST + 0.01).all()
    assert not free.any() or (env.io.peg[free, 0] > layout.FIRST).all()


def test_pressing_straight_on_ends_in_a_force_above_the_limit_and_is_no_success(robot):
    env, policy = make(robot, 6, seed=1), StraightOn()
    over, won = np.zeros(6, bool), np.zeros(6, bool)
    for _ in range(40):
        s = env.step(policy.act(np.zeros((6, env.obs_dim)), None)[0])
        over |= s.terminated
        won |= s.terminated & s.info["success"]
    assert over.all() and not won.any()


def test_the_oracle_feels_its_way_out(robot):
    b = 4
    env, policy = make(robot, b, seed=11), MazeOracle()
    obs, carry = env.reset(11), policy.start(b)
    first = np.zeros(b)  # of each world's first episode: 1 out, -1 not
    for _ in range(env.max_steps):
        action, carry = policy.act(obs, carry)
        s = env.step(action)
        obs, done = s.obs, s.terminated | s.truncated
        first = np.where((first == 0) & done, np.where(s.info["success"], 1, -1), first)
        if first.all():
            break
    assert (first == 1).sum() >= 3, first


def test_what_is_seen_does_not_depend_on_obstacles(robot):
    io = MazeIO(robot, 1)
    goal, w = np.array([[0.65, 0.0]]), np.arange(6.0)[None]
    q = robot.home[None]
    seen = [
        io.observe(Seen(q, 0 * q, p, np.ones((1, 2, 4)), goal, w)) for p in (np.zeros((1, 2, 3)), np.ones((1, 2, 3)))
    ]
    assert np.array_equal(seen[0], seen[1]) and seen[0].shape == (1, io.obs_dim)
    np.testing.assert_array_equal(seen[0][0, :6], w[0])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"split": "val"}, "split"),
        ({"gap": 0.02}, "gap"),
        ({"friction_left": 2.0}, "friction"),
        ({"force": 0.0}, "force"),
    ],
)
def test_impossible_mazes_are_refused(bad, said):
    with pytest.raises(ConfigError, match=said):
        MazeConfig(**bad)


def test_environments_that_share_a_task_do_not_notice_each_other(robot):
    task = MazeTask(MazeConfig())
    one, two, alone = (
        make_env(t, robot, None, num_envs=2, seed=s, nthread=1)
        for t, s in ((task, 1), (task, 2), (MazeTask(MazeConfig()), 1))
    )
    action = np.tile([1.0, 0.3, -1.0, 0.0], (2, 1))
    for _ in range(12):
        seen = one.step(action).obs
        two.reset()
        two.step(-action)
        assert np.array_equal(seen, alone.step(action).obs)
