"""Task ``edge``, and what ``edge`` and ``wall`` have in common."""

from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest

from palmar.safety.types import ConfigError
from palmar.sim.env import make_env
from palmar.sim.kinematics import matrix
from palmar.sim.tasks import find
from palmar.sim.tasks.aperture import gets_around
from palmar.sim.tasks.edge import EdgeConfig, EdgeTask
from palmar.sim.tasks.extrinsic import APERTURE, CELLS, TEST_CELLS, Stage, box_fields, draw, lowest
from palmar.sim.tasks.extrinsic_io import ExtrinsicIO
from palmar.sim.tasks.skills import Aim, Script, Skill, after, never, seen

BOTH = ("edge", "wall")


def task_of(name, **kwargs):
    found = find.load(name)
    return found.task(found.config(**kwargs))


def roll(robot, name, policy, n, seed=1, steps=300):
    """Success (n,) of one episode each, ended when all are decided, and costs are off."""
    env = make_env(task_of(name, friction=(0.6, 1.2), split="test"), robot, None, num_envs=n, seed=seed, nthread=2)
    script = find.load(name).scripted()[policy]()
    obs, carry, good, over = env._observe(), script.start(n), np.zeros(n, bool), np.zeros(n, bool)
    for _ in range(steps):
        action, carry = script.act(obs, carry)
        step = env.step(action)
        obs = step.obs
        good |= step.info["success"] & ~over
        over |= step.terminated | step.truncated
        if (good | over).all():
            break
    return good


def test_oracle_slides_the_plate_over_the_edge_and_lifts_it_and_a_direct_grasp_does_not(robot):
    assert roll(robot, "edge", "oracle", 6).sum() >= 5
    assert not roll(robot, "edge", "direct", 3, steps=130).any()


def test_the_hand_gets_around_narrow_boxes_but_no_posture_is_found_for_ours(robot):
    assert gets_around(robot, 0.16, height=0.05, tries=4)
    assert not gets_around(robot, APERTURE, height=0.05, tries=1)


def test_training_and_testing_share_no_cell_and_together_fill_the_range():
    rng = np.random.default_rng(0)
    cells = {s: set(((draw(rng, (2.0, 5.0), s, 2000) - 2.0) / 3.0 * CELLS).astype(int)) for s in ("train", "test")}
    assert cells["test"] == set(TEST_CELLS) and cells["train"] == set(range(CELLS)) - set(TEST_CELLS)


@pytest.mark.parametrize("name", BOTH)
def test_sizes_and_layouts_of_one_split_are_never_those_of_the_other(robot, name):
    goals = {}
    for split in ("train", "test"):
        task = task_of(name, split=split)
        goals[split] = task.start(np.random.default_rng(3), robot, 12).goal
    c = task_of(name).config
    for column, span, scale in ((0, c.width, 2), (1, c.width, 2), (2, c.thickness, 2), (3, getattr(c, name), 1)):
        for split, goal in goals.items():
            cell = np.floor((goal[:, column] * scale - span[0]) / (span[1] - span[0]) * CELLS).astype(int)
            assert all((k in TEST_CELLS) == (split == "test") for k in cell)


@pytest.mark.parametrize("name", BOTH)
def test_nothing_starts_inside_anything_and_what_lies_stays(robot, name):
    env = make_env(task_of(name), robot, None, num_envs=6, seed=4, nthread=1)
    for k in range(6):
        model = env.engine.batch.get_model(k)
        data = mujoco.MjData(model)
        data.qpos[:] = env.engine.qpos[k]
        mujoco.mj_forward(model, data)
        assert all(c.dist > -1e-4 for c in data.contact)
    before = env.engine.objects()[0].copy()
    for _ in range(10):
        env.step(np.zeros((6, env.action_dim)))
    assert np.abs(env.engine.objects()[0] - before).max() < 1e-3


def test_mass_and_inertia_are_those_mujoco_gives_a_box_of_that_size(robot):
    task = task_of("edge")
    model = Stage(robot, task.furnish, raise_by=0.08).model
    half, mass = np.array([[0.121, 0.125, 0.007]]), np.array([0.11])
    fields = box_fields(model, "plate", half, mass)
    spec = mujoco.MjSpec()
    spec.worldbody.add_body(name="b").add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=half[0], mass=0.11)
    alone = spec.compile()
    b = model.body("plate").id
    assert fields["body_mass"][0, b] == pytest.approx(0.11)
    # MuJoCo sorts the axes of an inertia, largest first.
    assert np.sort(fields["body_inertia"][0, b]) == pytest.approx(np.sort(alone.body_inertia[1]))
    with pytest.raises(ConfigError, match="larger than the compiled"):
        box_fields(model, "plate", half + 0.1, mass)


def test_lowest_corner_is_the_lowest_of_all_eight():
    rng = np.random.default_rng(0)
    q = rng.standard_normal((5, 4))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    p, half = rng.standard_normal((5, 3)), rng.uniform(0.01, 0.2, (5, 3))
    signs = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, 8).T
    corners = p[:, None] + np.einsum("bij,bcj->bci", matrix(q), signs[None] * half[:, None])
    assert lowest(p, q, half) == pytest.approx(corners[..., 2].min(1))


def test_a_plate_that_fell_from_the_shelf_ends_the_episode_and_one_on_end_is_not_lifted():
    task = EdgeTask(EdgeConfig())
    goal = np.array([[0.125, 0.125, 0.008, 0.05, task.config.top]] * 3)
    q = np.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [np.sqrt(0.5), np.sqrt(0.5), 0, 0]])
    z = [task.config.top + 0.12, 0.01, task.config.top + 0.125]  # up; on the table; standing on the shelf
    view: Any = SimpleNamespace(position=np.array([[[0.5, 0, h]] for h in z]), quaternion=q[:, None], goal=goal)
    assert task.achieved(view).tolist() == [True, False, False]
    assert task.failed(view).tolist() == [False, True, False]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"split": "validation"}, "train"),
        ({"width": (0.1, 0.2)}, "more than the hand opens"),
        ({"thickness": (0.05, 0.01)}, "increasing"),
        ({"mass": (0.0, 0.1)}, "positive"),
        ({"hold": 0.0}, "hold must be positive"),
        ({"reach": 1}, "within reach"),
        ({"top": 0.5}, "top must be"),
    ],
)
def test_what_no_episode_can_be_made_of_is_refused(name, bad, said):
    bad = {name: (0.5, 0.6)} if "reach" in bad else bad  # an edge or wall half a metre to the side
    with pytest.raises(ConfigError, match=said):
        task_of(name, **bad)


def test_a_hand_that_would_start_inside_the_shelf_is_refused(robot):
    stage = Stage(robot, task_of("edge").furnish, raise_by=0.0)
    with pytest.raises(ConfigError, match="hand starts"):
        stage.starts(np.random.default_rng(0), 2, above=0.16)


def test_a_plate_larger_than_the_shelf_is_refused():
    with pytest.raises(ConfigError, match="does not fit onto the shelf"):
        EdgeConfig(width=(0.3, 0.4))


def test_parts_of_an_observation_are_found_again(robot):
    env = make_env(task_of("edge"), robot, None, num_envs=2, seed=0, nthread=1)
    see = seen(env.reset(0))
    assert see["palm"] == pytest.approx(env.io.hand.palm, abs=1e-6)
    assert see["axes"] == pytest.approx(matrix(env.tracker.quaternion[:, 0]), abs=1e-6)
    assert see["goal"] == pytest.approx(env.goal, abs=1e-6)


def test_the_hand_turns_about_its_own_axes_as_told(robot):
    io = ExtrinsicIO(robot, 1)
    io.reset(np.array([0]), robot.home[None])
    before = io.hand.rotation[0]
    for k in range(40):  # pitch by -0.6 rad, then stand
        io.hand = io.kinematics.hand(io.target)
        io.joint_target(np.array([[0, 0, 0, 0, -1.0 if k < 6 else 0.0, 0, 0, 0]]))
    turn = io.kinematics.hand(io.target).rotation[0] @ before.T
    c, s = np.cos(-0.6), np.sin(-0.6)
    assert turn == pytest.approx(np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), abs=2e-3)


def test_skills_follow_each_other_and_start_again_when_lost():
    def stay(see, first, since):
        return Aim(see["palm"])

    lost = Skill("second", stay, after(5), 9, lambda see, aim, since: since >= 2)
    script = Script((Skill("first", stay, after(3), 9), lost, Skill("third", stay, never, 10**9)))
    obs = np.zeros((1, sum(ExtrinsicIO.obs_sizes)))
    at = int(np.cumsum((0, *ExtrinsicIO.obs_sizes))[ExtrinsicIO.obs_names.index("last_action")])
    carry, phases = script.start(1), []
    for _ in range(12):
        _, carry = script.act(obs, carry)
        phases.append(int(carry.phase[0]))
        obs[0, at] = 0.5  # an episode's age shows in its last action
    assert phases == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1]
    obs[0, at] = 0.0  # a fresh episode starts at the first skill, whatever the last one did
    assert int(script.act(obs, carry)[1].phase[0]) == 0
