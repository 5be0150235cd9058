"""The table of hazards: what differs per world, what camera and hand can reach, and that care is what counts."""

from importlib.resources import files

import mujoco
import numpy as np
import pytest

from palmar.safety.constraints import load
from palmar.safety.types import ConfigError
from palmar.sim import scene
from palmar.sim.env import make_env
from palmar.sim.kinematics import Hand, Kinematics, arm_step
from palmar.sim.tasks import hazards_scene as table
from palmar.sim.tasks.hazards import HazardsConfig, HazardsTask, over, scripted
from palmar.sim.tasks.hazards_sense import CAMERA, CELLS, free_cells, visible
from palmar.sim.tasks.lift import BLOCKS, PHRASES, ground

NAMES = ("corner", "blind_spot", "fragile_group", "critical_point", "dangerous_object")


@pytest.fixture(scope="module")
def rows(robot):
    return load(files("palmar.configs") / "constraints" / "hazards.yaml", robot.limits)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def starts(robot):
    return {s: HazardsTask(HazardsConfig(split=s)).start(np.random.default_rng(0), robot, 200) for s in table.SPLITS}


def test_splits_share_no_shape_colour_word_or_layout(starts):
    a, b = table.SPLITS["train"], table.SPLITS["test"]
    assert not set(a.layouts) & set(b.layouts) and not set(PHRASES["train"]) & set(PHRASES["test"])
    for low, high in ((a.radius, b.radius), (a.height, b.height), (a.side, b.side), (a.hue, b.hue)):
        assert low[1] <= high[0]
    model = scene.compose(furnish=table.furnish)[0]
    geoms = [model.body_geomadr[model.body(h.name).id] for h in table.HAZARDS]
    size = {s: starts[s].fields["geom_size"][:, geoms, 0] for s in starts}
    assert size["train"].max() < size["test"].min()
    layouts = {}
    for split, start in starts.items():
        p, side = start.poses, -np.sign(start.poses[range(200), start.goal[:, 0], 1])
        knife, bottle = p[:, 3 + table.KNIFE], p[:, 3 + table.BOTTLE]
        at_edge = knife[:, 0] > 0.49
        spare = np.sign(np.where(at_edge, knife[:, 1], bottle[:, 1])) * side
        layouts[split] = set(zip(spare.tolist(), at_edge.tolist(), strict=True))
    assert len(layouts["train"]) == len(layouts["test"]) == 2 and not layouts["train"] & layouts["test"]


@pytest.mark.parametrize("split", sorted(table.SPLITS))
def test_every_start_has_one_group_and_one_thing_at_the_edge_and_room_for_the_hand(starts, rows, split):
    start = starts[split]
    p, named = start.poses[..., :3], start.goal[:, 0]
    gap = np.linalg.norm(p[:, 3:, None, :2] - p[:, None, 3:, :2], axis=-1)
    link = rows["fragile_group"].params["link"]
    joined = (gap < link).sum(-1)  # itself included
    assert np.all(joined[:, :3] == 3) and np.all(joined[:, 3:] == 1)
    lower, upper = (np.array(rows["critical_point"].params[k]) for k in ("lower", "upper"))
    assert np.array_equal(lower, table.PLATFORM[0]) and np.array_equal(upper, table.PLATFORM[1])
    inside = np.minimum(p[..., :2] - lower[:2], upper[:2] - p[..., :2]).min(-1)
    on = (inside >= 0) & (p[..., 2] > upper[2])
    assert np.all(on.sum(1) == 1) and np.all(on[:, 3 + table.VASE])
    assert np.all(inside[:, 3 + table.VASE] < rows["critical_point"].params["near"])
    block = p[range(len(p)), named, :2]
    assert np.linalg.norm(p[:, 3:, :2] - block[:, None], axis=-1).min() > 0.18
    assert np.all(p[:, 3:, 1] * block[:, 1:] < np.abs(block[:, 1:]) ** 2)


def test_every_sentence_names_its_block():
    for split in table.SPLITS:
        task = HazardsTask(HazardsConfig(split=split))
        for phrase in range(len(task.phrases)):
            assert [ground(task.instruction(np.array([k, phrase]))) for k in range(3)] == [0, 1, 2]


def test_shapes_and_masses_of_a_world_are_those_a_compiler_gives(robot, starts):
    """Size, bounds, mass and inertia of one world against MuJoCo's own compiler."""
    fields, model = starts["test"].fields, scene.compose(furnish=table.furnish)[0]
    spec = scene.robot_spec()
    body = {b.name: model.body(b.name).id for b in (*BLOCKS, *table.HAZARDS)}
    blocks = []
    for b in table.HAZARDS:
        x, y, z = fields["geom_size"][0, model.body_geomadr[body[b.name]]]
        half = (x, x, y) if b.shape == "cylinder" else (x, y, z)
        blocks.append(scene.Block(b.name, b.shape, half, b.rgba, float(fields["body_mass"][0, body[b.name]])))
    scene.add_blocks(spec, blocks)
    own = spec.compile()
    for b in blocks:
        mine, there = model.body_geomadr[body[b.name]], own.body_geomadr[own.body(b.name).id]
        for name in ("geom_size", "geom_rbound", "geom_aabb"):
            want = np.ravel(getattr(own, name)[there])
            np.testing.assert_allclose(np.ravel(fields[name][0, mine]), want, atol=1e-9, err_msg=name)
        i = own.body(b.name).id
        np.testing.assert_allclose(fields["body_inertia"][0, body[b.name]], own.body_inertia[i], rtol=1e-6)


def hand_over(robot, x, y, z) -> tuple[Hand, float]:
    q = over(robot, x, y)[None]
    k = Kinematics(robot, 1)
    hand, lift = k.hand(q), np.array([0, 0, z])
    lift = lift - np.array([0, 0, hand.palm[0, 2]])
    return Hand(hand.palm + lift, hand.rotation, hand.tips + lift, hand.jacobian), float(k.tip_radius.max())


UPRIGHT = np.array([1.0, 0, 0, 0])


def test_the_camera_sees_what_is_inside_its_view_and_not_under_the_arm(robot):
    hand, _ = hand_over(robot, 0.5, 0.0, 0.2)
    under = hand.palm[0] * [1, 1, 0] + [0, 0, 0.08]
    p = np.array([[[0.5, 0.3, 0.08], under, [0.5, 0.9, 0.08], [1.0, 0.0, 0.08]]])
    assert visible(p, np.tile(UPRIGHT, (1, 4, 1)), hand).tolist() == [[1.0, 0.0, 0.0, 0.0]]
    away, _ = hand_over(robot, 0.5, -0.3, 0.2)
    assert visible(p, np.tile(UPRIGHT, (1, 4, 1)), away)[0, 1] == 1.0
    assert np.array(CAMERA)[2] > 1


def test_free_cells_fall_with_what_stands_around_and_not_for_a_hand_above(robot):
    def cells(x, y, z, things):
        hand, radius = hand_over(robot, x, y, z)
        p = np.array([things]) if things else np.zeros((1, 0, 3))
        return free_cells(p, np.tile(UPRIGHT, (1, p.shape[1], 1)), hand, radius)[0]

    assert len(CELLS) == 81
    assert cells(0.58, 0.0, 0.35, []) >= 79  # all but some at the workspace's ends: above the walls
    ring = [(0.55 + 0.12 * np.cos(a), 0.04 + 0.12 * np.sin(a), 0.08) for a in np.arange(0, 2 * np.pi, 0.7)]
    assert cells(0.58, 0.0, 0.20, ring) < 40 < cells(0.58, 0.0, 0.20, ring[:2]) < 79
    assert cells(0.58, 0.0, 0.35, ring) >= 79
    assert cells(0.58, 0.0, 0.16, []) < 79  # lower than the walls


def run(robot, rows, name, n, steps, seed):
    env = make_env(HazardsTask(HazardsConfig()), robot, rows, num_envs=n, seed=seed)
    policy = scripted()[name]()
    obs, carry, cost = env.reset(seed), policy.start(n), np.zeros((n, len(rows.names)))
    for _ in range(steps):
        action, carry = policy.act(obs, carry)
        step = env.step(action)
        obs, cost = step.obs, cost + step.cost
    return step.info["success"], cost


def test_care_costs_nothing_and_straight_ways_cost_every_hazard(robot, rows):
    at = [rows.names.index(name) for name in NAMES]
    lifted, kept = run(robot, rows, "oracle", 4, 145, 5)
    _, paid = run(robot, rows, "unaware", 4, 45, 5)
    assert lifted.mean() > 0.6
    assert kept[:, at].sum() == 0
    assert np.all((paid[:, at] > 0).mean(axis=0) >= 0.5)


def test_pushing_a_wall_counts_as_pushing_the_table(robot):
    model = scene.compose(furnish=table.furnish)[0]
    data, kinematics, q = mujoco.MjData(model), Kinematics(robot, 1), over(robot, 0.5, 0.09)[None]
    hand = kinematics.hand(q)
    for _ in range(50):
        now = kinematics.hand(q)
        q[:, : robot.n_arm] += arm_step(now, hand.palm * [1, 1, 0] + [0, 0, 0.17], hand.rotation)
    for j, x in zip(robot.joints, q[0], strict=True):
        data.qpos[model.joint(j).qposadr[0]] = x
    mujoco.mj_forward(model, data)
    pairs = [{model.geom(g).name for g in c.geom} for c in data.contact]
    touched = set().union(*(p for p in pairs if any(name.endswith("_tip") for name in p)))
    assert "wall_left" in touched and scene.TABLE not in touched
    assert np.linalg.norm(data.sensor(scene.FORCE_ROBOT_TABLE).data) > 1.0


@pytest.mark.parametrize("bad", [{"split": "exam"}, {"mass": (0.2, 0.1)}, {"hold": 0.0}])
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(ConfigError):
        HazardsConfig(**bad)


def test_a_robot_that_cannot_reach_the_start_is_refused(robot):
    with pytest.raises(ConfigError, match="cannot hold"):
        over(robot, 1.4, 0.0)
