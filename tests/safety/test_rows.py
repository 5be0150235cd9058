"""Each row of the filter's QP is the gradient of a distance, and asks for what its barrier asks for."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from palmar.safety import obstacles as cell
from palmar.safety.barrier import BarrierConfig, Slots, needed, needed_slow
from palmar.safety.bounds import Space, bounds_of
from palmar.safety.enforced import Torque
from palmar.safety.geometry import Kinematics
from palmar.safety.hulls import CLOSE, Detail, load_detail
from palmar.safety.qp import AccelerationQP
from palmar.safety.rows import CONTACT_KIND, EXTRAS, SELF_KIND, TABLE_KIND
from palmar.sim.robots import load_robot

DT, SHAPE = 0.001, BarrierConfig(reach=0.1)
EVERY = Slots(pairs=500, table=60, palm=6, obstacles=200, contacts=200, prune=False)
SELF, TABLE = 0.002, 0.01
IMPACT = 0.5


@pytest.fixture(scope="module", params=["small", "fr3_leap"])
def case(request, robot):
    """A robot, its kinematics with hulls where it has them and without, and a QP that keeps every row."""
    model, detail = robot, Detail()
    if request.param == "fr3_leap":
        model = load_robot("fr3_leap")
        detail = load_detail(Path(str(files("palmar.configs"))) / "filter" / "fr3_leap.yaml")
    kin, skins = Kinematics.from_model(model, detail), Kinematics.from_model(model, Detail(detail.skin))
    space = Space(SELF, TABLE, np.full(3, -9.0), np.full(3, 9.0))
    qp = AccelerationQP(model, kin, bounds_of(model.limits, 0.0), space, SHAPE, dt=DT, torque=Torque(), impact=IMPACT,
                        slots=EVERY)  # fmt: skip
    return model, kin, skins, qp


def states(model, n, seed):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        q = rng.uniform(model.limits.q_min, model.limits.q_max) * 0.8
        yield rng, q, rng.uniform(-0.3, 0.3, model.n) * model.limits.v_max


def rows_of(qp, kind, n):
    """Rows of a kind in the last problem: gradients (k, n) [m/rad] and what they ask for (k,) [m/s2]."""
    at = np.flatnonzero(qp.kind[: qp.first_torque] == kind)
    used = at[np.any(qp.matrix[at, :n] != 0.0, axis=1)]
    return qp.matrix[used, :n] / qp.bounds.a, qp.lower[n + EXTRAS + used], used


def reachable(qp, gradients, need):
    """``need``, as far as the box of accelerations lets it be reached."""
    one, two = gradients * qp.low, gradients * qp.high
    least, most = np.minimum(one, two).sum(axis=1), np.maximum(one, two).sum(axis=1)
    return np.minimum(need, most - 1e-6 * (most - least) - 1e-9)


def asked(h, dh):
    return np.array([needed(x, y, SHAPE.brake, SHAPE.soft, SHAPE.rate) for x, y in zip(h, dh, strict=True)])


def test_rows_of_links_and_table_are_the_gradients_of_all_that_is_near(case):
    model, kin, skins, qp = case
    met = hulls = 0
    for _, q, v in states(model, 150 if model.n > 8 else 40, seed=0):
        qp.solve(q, v, np.zeros(model.n), np.zeros(model.n), obstacles=cell.nothing())
        for kind, distance, bare, gradient, limit, reach in zip(
            (SELF_KIND, TABLE_KIND), kin.clearances(q), skins.clearances(q), kin.rows(q), (SELF, TABLE),
            (SHAPE.reach * kin.tree.pair_near + SELF, SHAPE.reach + TABLE + SHAPE.buffer), strict=True,
        ):  # fmt: skip
            near = np.flatnonzero((bare < reach) & np.any(gradient != 0.0, axis=1))
            rows, need, _ = rows_of(qp, kind, model.n)
            np.testing.assert_allclose(rows, gradient[near], atol=1e-9)
            want = asked(distance[near] - limit - SHAPE.buffer, gradient[near] @ v)
            np.testing.assert_allclose(need, reachable(qp, gradient[near], want), rtol=1e-6, atol=1e-6)
            met += len(near)
            hulls += kind == SELF_KIND and int(np.sum((kin.tree.hull[near, 0] >= 0) & (distance[near] < CLOSE)))
    assert met > 100 and (hulls > 20 or model.n == 8)


def test_rows_of_contact_are_those_of_the_hand_alone_and_may_be_bought(case):
    model, kin, _, qp = case
    met, n = 0, model.n
    for rng, q, v in states(model, 40, seed=1):
        o = cell.with_objects(cell.nothing(), kin.palm(q) + rng.normal(size=(2, 3)) * 0.1, 0.03)
        qp.solve(q, v, np.zeros(n), np.zeros(n), obstacles=o)
        _, _, axis, anchor, ends = kin.place(q)
        want = []
        for k in range(2):
            for g in kin.tree.moving:
                row = np.zeros(n)
                d = cell.obstacle_row(kin.tree, g, o, k, ends, axis, anchor, row, np.zeros((3, 3)))
                if kin.tree.hand[g] and d < SHAPE.reach:
                    want.append((*row, needed_slow(d, row @ v, SHAPE.brake, IMPACT, SHAPE.rate)))
        rows, need, at = rows_of(qp, CONTACT_KIND, n)
        want = np.array(want).reshape(-1, n + 1)
        np.testing.assert_allclose(rows, want[:, :-1], atol=1e-9)
        np.testing.assert_allclose(need, reachable(qp, want[:, :-1], want[:, -1]), rtol=1e-6, atol=1e-6)
        assert np.all(qp.matrix[at, n + 1] > 0.0)
        met += len(want)
    assert met > 100
