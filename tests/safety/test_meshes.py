"""Clearance of the detailed reference meshes stays non-negative while the robot moves alone, at the declared bounds.

Counted on the *true* configuration of the simulated robot, by MuJoCo on Menagerie's collision geometry; the filter
knows capsules, skins and hulls (``configs/filter``) and never saw a mesh.
"""

import itertools
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
import pytest
from imperfect import Imperfect, drive

from palmar.benchmarks.filter import Adversary
from palmar.safety.chunks import ChunkConfig
from palmar.safety.constraints import load
from palmar.safety.declared import Declared
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.geometry import Kinematics
from palmar.safety.hulls import hull_distance, load_detail
from palmar.sim import menagerie, scene
from palmar.sim.robots import load_robot
from palmar.sim.tasks.palm import FINGER_OF

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="reference models are not in the repository")
CONFIGS = Path(str(files("palmar.configs")))
DECLARED = Declared()
KINDS = ("self", "sweep", "random", "table")
NEAR = 0.02
"""Nobody asks how much further apart meshes are [m]."""


class Meshes:
    """Distances of the reference's collision geometry, for the body pairs that the robot model guards."""

    def __init__(self, robot):
        self.robot, self.model = robot, menagerie.reference_robot_spec(REFERENCE).compile()
        self.data = mujoco.MjData(self.model)
        m, own = self.model, mujoco.MjModel.from_xml_string(robot.xml)
        self.address = [m.joint(j).qposadr[0] for j in robot.joints]
        of = {name: own.body(own.geom(name).bodyid[0]).name for pair in robot.pairs for name in pair}
        self.bodies = sorted({tuple(sorted((of[a], of[b]))) for a, b in robot.pairs})
        self.geoms: dict[str, list[int]] = {}
        for g in range(m.ngeom):
            if m.geom_bodyid[g] and (m.geom_contype[g] or m.geom_conaffinity[g]):
                self.geoms.setdefault(m.body(m.geom_bodyid[g]).name, []).append(g)
        pairs = [p for a, b in self.bodies for p in itertools.product(self.geoms[a], self.geoms[b])]
        self.one, self.two = np.array(pairs).T
        self.moving = [g for b, gs in self.geoms.items() if b not in ("fr3_link0", "fr3_link1") for g in gs]

    def place(self, q):
        self.data.qpos[self.address] = q
        mujoco.mj_kinematics(self.model, self.data)

    def own(self, a=None, b=None):
        """Smallest distance between links at the placed pose, or between two bodies [m]; NEAR where further."""
        m, d = self.model, self.data
        one, two = self.one, self.two
        if a is not None and b is not None:
            one, two = np.array(list(itertools.product(self.geoms[a], self.geoms[b]))).T
        gap = np.linalg.norm(d.geom_xpos[one] - d.geom_xpos[two], axis=1) - m.geom_rbound[one] - m.geom_rbound[two]
        best = NEAR
        for i in np.argsort(gap):
            if gap[i] >= best:
                break
            best = min(best, mujoco.mj_geomDistance(m, d, one[i], two[i], best, None))
        return best

    def height(self):
        """Lowest point of the moving links above the table [m]."""
        m, d, low = self.model, self.data, np.inf
        for g in self.moving:
            up = d.geom_xmat[g].reshape(3, 3)[2]
            if m.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH:
                k = m.geom_dataid[g]
                reach = (m.mesh_vert[m.mesh_vertadr[k] :][: m.mesh_vertnum[k]] @ up).min()
            else:
                reach = -np.abs(up) @ m.geom_size[g]
            low = min(low, d.geom_xpos[g, 2] + reach)
        return low


@pytest.fixture(scope="module")
def robot():
    return load_robot()


@pytest.fixture(scope="module")
def meshes(robot):
    return Meshes(robot)


@pytest.fixture(scope="module")
def detail(robot):
    return load_detail(CONFIGS / "filter" / f"{robot.name}.yaml")


def test_every_mix_of_open_and_closed_fingers_of_the_lift_keeps_its_meshes_apart(robot, meshes):
    opened, n = robot.home[robot.n_arm :], robot.n_arm
    closed = np.array([scene.GRASP.close[j] for j in robot.joints[n:]])
    low = np.inf
    for shares in itertools.product((0.0, 0.4, 0.8, 1.15), repeat=4):
        q = robot.home.copy()
        q[n:] = opened + np.array(shares)[FINGER_OF] * (closed - opened)
        meshes.place(np.clip(q, robot.limits.q_min + 0.01, robot.limits.q_max - 0.01))
        low = min(low, meshes.own())
    assert low > 0.004


def test_skins_and_hulls_never_promise_more_room_than_the_meshes_have(robot, meshes, detail):
    """Capsule gap less both skins, and the distance of the hulls, are at most the meshes' distance."""
    rng, kinematics, near = np.random.default_rng(0), Kinematics.from_model(robot), 0
    skin = np.array([detail.skin[a] + detail.skin[b] for a, b in robot.pairs])
    own = mujoco.MjModel.from_xml_string(robot.xml)
    body = {g: own.body(own.geom(g).bodyid[0]).name for pair in robot.pairs for g in pair}
    names = [tuple(sorted((body[a], body[b]))) for a, b in robot.pairs]
    for _ in range(150):
        q = rng.uniform(robot.limits.q_min, robot.limits.q_max)
        meshes.place(q)
        gap, promised = kinematics.clearances(q)[0] - skin, {}
        for i in np.flatnonzero(gap < NEAR):
            promised[names[i]] = min(promised.get(names[i], NEAR), gap[i])
        for (a, b), capsules in promised.items():
            if capsules < -0.01:
                continue  # deep inside: MuJoCo's depth is an estimate
            true = meshes.own(a, b)
            near += true < NEAR
            assert capsules <= true + 1e-6, (a, b)
            if a in detail.hulls and b in detail.hulls and 0 < true < NEAR:
                assert hulls_apart(meshes, detail, a, b) <= true + 1e-4, (a, b)  # corners are rounded to 0.1 mm
    assert near > 100


def hulls_apart(meshes, detail, a, b):
    """Distance of two bodies' hulls at the placed pose [m]."""
    d, points = meshes.data, np.concatenate([detail.hulls[a], detail.hulls[b]])
    n = len(detail.hulls[a])
    ra, rb = (d.body(x).xmat.reshape(3, 3) for x in (a, b))
    shift = ra.T @ (d.body(b).xpos - d.body(a).xpos)
    turn = np.ascontiguousarray(ra.T @ rb)
    return hull_distance(points, 0, n, n, len(points), turn, shift, 1.0, np.zeros((12, 4)), np.zeros(3), np.zeros(3))


def hostile(robot, meshes, seed, ticks, **config):
    """Smallest clearances of the true robot's meshes, links and table [m], under a hostile policy."""
    rng = np.random.default_rng(seed)
    payload, delay = DECLARED.payload * (seed % 2), DECLARED.delay
    world = scene.compose()[0]
    sim = Imperfect(robot, world, declared=DECLARED, rng=rng, mass=DECLARED.mass, payload=payload, delay=delay)
    adversary, own, table = Adversary(robot, rng), NEAR, np.inf

    def chunk(k, now, u):
        out = adversary.chunk(k, now, u)
        if k % 200 == 0:
            adversary.kind = KINDS[rng.integers(len(KINDS))]
        return out

    constraints = load(CONFIGS / "constraints" / "arm_hand.yaml", robot.limits)
    filter_ = Filter(robot, constraints, replace(FilterConfig(chunks=ChunkConfig(jump=10.0)), **config))
    for k, _ in enumerate(drive(filter_, sim, chunk, ticks)):
        if k % 5 == 0:
            meshes.place(sim.q)
            own, table = min(own, meshes.own()), min(table, meshes.height())
    return own, table


@pytest.mark.parametrize("seed", [100, 2])
def test_the_meshes_of_the_true_robot_stay_apart_and_off_the_table(robot, meshes, detail, seed):
    own, table = hostile(robot, meshes, seed, 2000, detail=detail)
    assert own >= 0.0
    assert table >= 0.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 220))
def test_and_over_two_hundred_thousand_ticks(robot, meshes, detail, seed):
    own, table = hostile(robot, meshes, seed, 10_000, detail=detail)
    assert own >= 0.0
    assert table >= 0.0


@pytest.mark.slow
def test_capsules_alone_do_not_keep_the_meshes_apart(robot, meshes, detail):
    """Why skins and hulls are there; and that the count above can fail."""
    empty = replace(detail, skin={}, hulls={})
    assert min(hostile(robot, meshes, seed, 6000, detail=empty)[0] for seed in (0, 2)) < 0.0
