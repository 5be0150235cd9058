"""Scenes, words, observation and refusals of the clutter task; its oracle's idea of the hand is the hand."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from palmar.safety.types import ConfigError
from palmar.sim import layout, words
from palmar.sim.env import make_env
from palmar.sim.forms import FAMILIES, SPLITS
from palmar.sim.interface import Seen, View
from palmar.sim.kinematics import Kinematics, arm_step, rotation_vector, rotation_z
from palmar.sim.objects import Thing
from palmar.sim.scene import GRASP
from palmar.sim.tasks import clutter_oracle as oracle
from palmar.sim.tasks import find
from palmar.sim.tasks.clutter import CENTRE, COLOURS, REACH, ClutterConfig, ClutterTask
from palmar.sim.tasks.clutter_io import GOAL, HALF, MOST, ClutterIO
from palmar.sim.words import UnknownInstruction

B = 6
BOX, CAN = Thing("box", (0.022, 0.040, 0.025)), Thing("cylinder", (0.022, 0.022, 0.025))


@pytest.fixture(scope="module")
def tasks():
    return {s: ClutterTask(ClutterConfig(split=s)) for s in SPLITS}


@pytest.fixture(scope="module")
def starts(tasks, robot):
    return {s: tasks[s].start(np.random.default_rng(4), robot, 60) for s in SPLITS}


@pytest.fixture(scope="module")
def env(tasks, robot):
    return make_env(tasks["test"], robot, None, num_envs=B, seed=3)


def there(start):
    return start.goal[..., 1] > 0.5


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_are_as_configured(starts, tasks, split):
    start, config = starts[split], tasks[split].config
    count = there(start).sum(1)
    assert count.min() == config.objects[0] and count.max() == config.objects[1]
    assert (start.goal[..., 0].sum(1) == 1).all() and there(start)[start.goal[..., 0] > 0.5].all()
    assert np.array_equal(start.poses[there(start), 2], start.goal[there(start), 5])
    for poses, goal, here in zip(start.poses, start.goal, there(start), strict=True):
        half = goal[here, HALF]
        assert layout.closest(half, poses[here]) >= config.gap
        assert (np.abs(poses[here, :2] - CENTRE) <= np.array(config.region) / 2).all()
        layout.check(half, poses[here])
        kinds = {(r[2], r[8], 2 * max(r[HALF]) > 0.07) for r in goal[here]}
        assert len(kinds) == here.sum()
    assert {int(f) for f in start.goal[there(start), 2]} == set(range(len(FAMILIES)))


def test_splits_share_no_colour_no_sentence_and_no_layout(starts, tasks):
    colours = {s: set(starts[s].goal[there(starts[s]), 8]) for s in SPLITS}
    assert not colours["train"] & colours["test"] and all(len(c) == 5 for c in colours.values())
    said = {s: {tasks[s].instruction(g) for g in starts[s].goal} for s in SPLITS}
    assert not said["train"] & said["test"] and min(map(len, said.values())) > 20
    for k, s in enumerate(SPLITS):
        assert (layout.split_of(starts[s].poses[there(starts[s]), :2]) == k).all()


@pytest.mark.parametrize("split", SPLITS)
def test_what_is_said_means_the_named_object(starts, tasks, split):
    for goal in starts[split].goal:
        here = np.flatnonzero(goal[:, 1] > 0.5)
        found = words.ground(tasks[split].instruction(goal), tasks[split].described(goal))
        assert goal[here[found], 0] == 1


def test_worlds_have_the_shapes_of_their_goals_and_everything_rests(env):
    """Per-world geometry, after the environment has begun again: at rest at half its height, parked things too."""
    env.reset(8)
    names = [env.engine.model.geom(f"{n}_geom").id for n in env.task.objects]
    for k in range(B):
        model, rows = env.engine.batch.get_model(k), env.goal[k]
        aabb = model.geom_aabb[names, 3:]
        for m in np.flatnonzero(rows[:, 1] > 0.5):
            assert np.sort(aabb[m]).max() >= rows[m, HALF].min() - 1e-6
            if FAMILIES[int(rows[m, 2])] in ("box", "cylinder"):
                assert aabb[m] == pytest.approx(rows[m, HALF])
        assert np.array_equal(model.geom_rgba[names, 3] > 0, rows[:, 1] > 0.5)
    before = [a.copy() for a in env.engine.objects()]
    for _ in range(20):
        env.step(np.zeros((B, 8)))
    position, quaternion = env.engine.objects()
    assert np.abs(position - before[0]).max() < 1e-3
    assert np.abs(np.sum(quaternion * before[1], -1)).min() > 0.9999


def test_observation_depends_neither_on_the_order_of_objects_nor_on_absent_ones(robot, starts):
    start = starts["test"]
    io = ClutterIO(robot, len(start.q))
    seen = Seen(start.q, 0 * start.q, start.poses[..., :3], start.poses[..., 3:], start.goal)
    obs = io.observe(seen)
    order = np.random.default_rng(0).permutation(MOST)
    mixed = replace(
        seen, position=seen.position[:, order], quaternion=seen.quaternion[:, order], goal=seen.goal[:, order]
    )
    assert np.array_equal(io.observe(mixed), obs)
    moved = np.where(there(start)[..., None], seen.position, 0.3)
    assert np.array_equal(io.observe(replace(seen, position=moved)), obs)
    nudged = seen.position.copy()
    nudged[start.goal[..., 0] > 0.5] += 0.01
    assert not np.array_equal(io.observe(replace(seen, position=nudged)), obs)


def test_success_is_the_named_object_up_and_only_that_one(tasks, starts):
    start, task = starts["test"], tasks["test"]
    k = len(start.q)
    named = start.goal[..., 0] > 0.5

    def achieved(position):
        nothing = np.zeros(k)
        view = View(nothing, nothing, nothing, None, nothing, position, start.poses[..., 3:], start.goal, None)  # type: ignore[arg-type]
        return task.achieved(view)

    low = start.poses[..., :3].copy()
    assert not achieved(low).any()
    up = low.copy()
    up[named, 2] += 0.101
    assert achieved(up).all()
    up[named, 2] -= 0.002
    assert not achieved(up).any()
    both = low.copy()
    both[there(start), 2] += 0.11
    assert not achieved(both).any()
    wrong = low.copy()
    wrong[~named & there(start), 2] += 0.11
    assert not achieved(wrong).any()


def arranged(task, robot, poses=((0.5, 0.0), (0.5, 0.12)), z=0.025, things=(BOX, CAN), said="lift the box", **kw):
    full = np.array([[x, y, z, *kw.get("turn", (1, 0, 0, 0))] for x, y in poses])
    return task.arranged(robot, things, kw.get("colours", ("red", "green")), full, said)


def test_arranged_scenes_begin_as_given(tasks, robot):
    start = arranged(tasks["train"], robot, said="lift the cylinder")
    assert start.goal[0, :, 0].tolist() == [0, 1, 0, 0, 0, 0] and start.poses[0, 1, 1] == 0.12


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"poses": ((0.5, 0.0), (0.5, 0.06))}, "penetrate each other by 0.002"),
        ({"z": 0.01}, "above the table"),
        ({"z": 0.05}, "above the table"),
        ({"turn": (0.9, 0.4, 0, 0)}, "upright"),
        ({"turn": (np.nan, 0, 0, 0)}, "not finite"),
        ({"poses": ((0.62, 0.0), (0.5, 0.12))}, "out of reach"),
        ({"colours": ("red", "mauve")}, "mauve"),
        ({"colours": ("red",)}, "colour and a pose each"),
        ({"things": (), "colours": (), "poses": np.zeros((0, 2))}, "1 to 6"),
    ],
)
def test_impossible_scenes_are_refused_before_anything_moves(tasks, robot, asked, said):
    with pytest.raises(ConfigError, match=said):
        arranged(tasks["train"], robot, **asked)


def test_words_for_nothing_there_are_refused(tasks, robot):
    with pytest.raises(UnknownInstruction, match="small green cylinder"):
        arranged(tasks["train"], robot, said="lift the crystal")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"split": "exam"}, "exam"), ({"families": ("torus",)}, "torus"), ({"families": ()}, "a family"),
        ({"objects": (3, 7)}, "1 to 6"), ({"objects": (4, 3)}, "1 to 6"), ({"gap": -0.01}, "penetrate"),
        ({"region": (0.3, 0.4)}, "reaches"), ({"mass": (0.2, 0.1)}, "mass"), ({"hold": 0}, "hold"),
    ],
)  # fmt: skip
def test_impossible_difficulty_is_refused(bad, said):
    with pytest.raises(ConfigError, match=said):
        ClutterConfig(**bad)


def test_layouts_that_do_not_fit_are_refused(robot):
    with pytest.raises(ConfigError, match="do not fit"):
        ClutterTask(ClutterConfig(gap=0.3)).start(np.random.default_rng(0), robot, 1)


def test_rectangles_keep_the_distance_they_are_said_to():
    a = oracle.rectangle(np.zeros(2), np.array([0.02, 0.04]), np.array(0.0))
    assert layout.gap(a, a + np.array([0.1, 0.0])) == pytest.approx(0.06)
    assert layout.gap(a, a + np.array([0.03, 0.0])) == pytest.approx(-0.01)
    rng = np.random.default_rng(0)
    centre, half, yaw = rng.uniform(-0.1, 0.1, (300, 2)), rng.uniform(0.01, 0.05, (300, 2)), rng.uniform(-3, 3, 300)
    b = oracle.rectangle(centre, half, yaw)
    inside = oracle.turned(rng.uniform(-1, 1, (200, 300, 2)) * half, yaw[None]) + centre
    off = np.linalg.norm(np.maximum(np.abs(inside) - np.array([0.02, 0.04]), 0), axis=-1)
    assert (layout.gap(a, b) <= off.min(0) + 1e-12).all(), "never more than the true distance"
    assert np.array_equal(layout.gap(a, b), layout.gap(b, a)) and layout.gap(a, a - [0.0, 0.1]) == pytest.approx(0.02)


def test_the_hand_reaches_every_object_of_the_region_with_every_turn(robot):
    """Inverse kinematics from home to the grasp, at the corners and sides of REACH."""
    side = np.array(REACH) / 2
    grid = [(x, y, t) for x in (-1, 0, 1) for y in (-1, 0, 1) for t in (-oracle.FURTHEST, 0, oracle.FURTHEST)]
    xy, turn = CENTRE + np.array(grid)[:, :2] * side, np.array(grid)[:, 2]
    kinematics = Kinematics(robot, len(grid))
    palm = np.c_[xy, np.full(len(xy), 0.02)] + rotation_z(GRASP.yaw + turn) @ np.array(GRASP.palm_pos)
    q, nominal = np.tile(robot.home, (len(grid), 1)), Kinematics(robot, 1).hand(robot.home[None]).rotation[0]
    low, high = robot.limits.q_min[:7] + 0.01, robot.limits.q_max[:7] - 0.01
    for k in range(120):
        wanted = rotation_z(turn * min(1, k / 60)) @ nominal
        dq = np.clip(arm_step(kinematics.hand(q), palm, wanted), -0.15, 0.15)
        q[:, :7] = np.clip(q[:, :7] + dq, low, high)
    hand = kinematics.hand(q)
    assert np.linalg.norm(hand.palm - palm, axis=1).max() < 0.004
    assert np.linalg.norm(rotation_vector(wanted @ hand.rotation.swapaxes(1, 2)), axis=1).max() < 0.03


@pytest.mark.parametrize("half_width", [0.020, 0.024, 0.0285])
def test_the_oracles_shadow_of_the_hand_covers_the_hand(robot, half_width):
    """No capsule of the pre-shaped hand, below the height at which a part begins, lies outside its rectangles."""
    width = np.array([half_width])
    share, height = oracle.preshape(width)[0], 0.06
    close = np.array([GRASP.close[j] for j in robot.joints[7:]])
    q = robot.home.copy()
    q[7:] += share * (close - q[7:])
    palm = Kinematics(robot, 1).hand(q[None]).palm[0]
    points, radius = samples(robot, q)
    local = (points - palm) @ rotation_z(np.array([GRASP.yaw]))[0] + np.array(GRASP.palm_pos)
    at, low = local[:, :2], local[:, 2] - radius
    parts = oracle.shadow(width + 0.0104 + 0.014)
    covered = np.zeros(len(at), dtype=bool)
    for centre, half, begin in parts:
        inside = np.all(np.abs(at - centre[0]) + radius[:, None] <= half + 0.006, axis=1)
        covered |= inside & (low >= begin - 0.004)
    assert (low < height).any() and covered[low < height].all(), local[(low < height) & ~covered].round(3)


def samples(robot, q):
    """Points (k, 3) along the axes of the hand's capsules at joints q, and their radii (k,)."""
    model = mujoco.MjModel.from_xml_string(robot.xml)
    data = mujoco.MjData(model)
    data.qpos[[model.joint(j).qposadr[0] for j in robot.joints]] = q
    mujoco.mj_kinematics(model, data)
    palm = model.body(robot.palm_body).id
    hand = {palm}
    for b in range(palm + 1, model.nbody):
        if model.body_parentid[b] in hand:
            hand.add(b)
    points, radius = [], []
    for g in range(model.ngeom):
        if model.geom_bodyid[g] in hand and model.geom_type[g] == mujoco.mjtGeom.mjGEOM_CAPSULE:
            axis = data.geom_xmat[g].reshape(3, 3)[:, 2]
            for along in np.linspace(-1, 1, 5):
                points.append(data.geom_xpos[g] + along * model.geom_size[g, 1] * axis)
                radius.append(model.geom_size[g, 0])
    return np.array(points), np.array(radius)


def test_the_oracle_lifts_unseen_objects_and_doing_nothing_does_not(env):
    known = find.load("clutter").scripted()
    assert set(known) == {"oracle", "nothing"}
    won = {}
    for name, steps in {"oracle": 90, "nothing": 25}.items():  # success takes 20 steps
        policy, obs = known[name](), env.reset(21)
        carry = policy.start(B)
        for _ in range(steps):
            action, carry = policy.act(obs, carry)
            step = env.step(action)
            obs = step.obs
        won[name] = int(step.info["success"].sum())
    assert won["oracle"] >= B - 1 and won["nothing"] == 0, won


def test_goal_columns_are_named():
    assert len(GOAL) == 12 and len(set(GOAL)) == 12 and len(COLOURS) == len(set(COLOURS)) == 10
