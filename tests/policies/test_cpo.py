"""Steps of CPO and PCPO against convex solvers and the closed forms of their papers."""

import dataclasses

import numpy as np
import osqp
import pytest
import torch
from scipy import sparse
from scipy.optimize import minimize

from palmar.policies.algorithms import cpo, pcpo
from palmar.policies.rl.trust_region import Near, orthonormal

DELTA = 0.01
RADIUS = np.sqrt(2 * DELTA)


@dataclasses.dataclass
class Problem:
    """max g.x with now + B x <= 0 and x.H x <= 2 delta, over twelve numbers."""

    g: np.ndarray
    b: np.ndarray
    h: np.ndarray
    now: np.ndarray

    @staticmethod
    def random(seed, k):
        rng = np.random.default_rng(seed)
        root = rng.normal(size=(12, 12))
        h = root @ root.T / 12 + 0.1 * np.eye(12)
        return Problem(rng.normal(size=12), rng.normal(size=(k, 12)), h, rng.uniform(-0.3, 0.2, size=k))

    def near(self):
        slopes, h = torch.as_tensor(np.vstack([self.g, self.b])), torch.as_tensor(self.h)
        return Near(slopes, lambda v: h @ v, orthonormal(lambda v: h @ v, slopes, cg_steps=50))

    def solved(self, cost, slope, *, budgets=True, ball=True):
        """The least ``cost`` within budgets, ball or both, by sequential quadratic programming."""
        rules = [{"type": "ineq", "fun": lambda x: -(self.now + self.b @ x), "jac": lambda x: -self.b}] * budgets
        full = {"type": "ineq", "fun": lambda x: 1 - x @ self.h @ x / (2 * DELTA), "jac": lambda x: -self.h @ x / DELTA}
        x = minimize(
            cost,
            np.zeros(12),
            jac=slope,
            constraints=[*rules, *([full] if ball else [])],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return x.x

    def closed_form(self):
        """Theorem 2 of CPO's appendix, which minimises: for one constraint that can be met."""
        solve = np.linalg.solve
        g, b, c = -self.g, self.b[0], self.now[0]
        q, r, s = g @ solve(self.h, g), g @ solve(self.h, b), b @ solve(self.h, b)
        if c < 0 and c**2 / s > 2 * DELTA:
            return -np.sqrt(2 * DELTA / q) * solve(self.h, g)
        cut = max(r / c, 0.0)
        low, high = ((0.0, cut), (cut, np.inf)) if c < 0 else ((cut, np.inf), (0.0, cut))
        a = max(np.clip(np.sqrt((q - r**2 / s) / (2 * DELTA - c**2 / s)), *low), 1e-12)
        b_ = max(np.clip(np.sqrt(q / (2 * DELTA)), *high), 1e-12)
        at_a = ((r**2 / s - q) / a + a * (c**2 / s - 2 * DELTA)) / 2 - r * c / s
        lam = a if at_a >= -(q / b_ + b_ * 2 * DELTA) / 2 else b_
        nu = max(0.0, (lam * c - r) / s)
        return -solve(self.h, g + nu * b) / lam


def chosen(problem):
    """CPO's choice, (12,), and whether the budgets can be met."""
    near = problem.near()
    rows = near.rows()
    y = cpo.best_step(rows[0], rows[1:], problem.now, RADIUS)
    x = cpo.recovery_step(rows[1:], problem.now, RADIUS) if y is None else y
    return x @ near.basis.numpy(), y is not None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_step_of_cpo_is_that_of_a_convex_solver(seed, k):
    p = Problem.random(seed, k)
    x, can = chosen(p)
    least = p.solved(lambda x: x @ p.h @ x / 2, lambda x: p.h @ x, ball=False)
    assert can == (least @ p.h @ least <= 2 * DELTA)
    assert x @ p.h @ x <= 2 * DELTA * (1 + 1e-6)
    if can:
        best = p.solved(lambda x: -p.g @ x, lambda x: -p.g)
        assert np.all(p.now + p.b @ x <= 1e-6)
        assert p.g @ x == pytest.approx(p.g @ best, rel=1e-5, abs=1e-6)
    else:

        def over(x):
            return np.maximum(p.now + p.b @ x, 0)

        best = p.solved(lambda x: over(x) @ over(x) / 2, lambda x: p.b.T @ over(x), budgets=False)
        assert over(x) @ over(x) == pytest.approx(over(best) @ over(best), rel=1e-5, abs=1e-9)


CASES = {
    "overrun, out of reach": (1.3, False),
    "overrun, within reach": (0.6, True),
    "kept, the edge within reach": (-0.6, True),
    "kept wherever the step may end": (-1.3, True),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_with_one_constraint_it_is_the_closed_form_of_the_paper(case, seed):
    factor, reachable = CASES[case]
    p = Problem.random(seed, 1)
    if seed % 2:  # the reward pays for the cost: else the edge is hardly ever met
        p.b[0] += p.g * np.sign(factor)
    b = p.b[0]
    s = b @ np.linalg.solve(p.h, b)
    p.now = np.array([factor * RADIUS * np.sqrt(s)])
    x, can = chosen(p)
    recovery = -np.sqrt(2 * DELTA / s) * np.linalg.solve(p.h, b)
    assert can == reachable
    assert np.allclose(x, p.closed_form() if reachable else recovery, rtol=1e-4, atol=1e-6)


def test_budgets_that_contradict_each_other_or_cannot_move_leave_a_finite_step():
    p = Problem.random(0, 3)
    p.b[1], p.b[2], p.now = -p.b[0], 0.0, np.array([0.1, 0.1, 0.1])
    x, can = chosen(p)
    assert not can and np.allclose(p.b[0] @ x, 0, atol=1e-5) and x @ p.h @ x <= 2 * DELTA


def test_a_reward_that_is_a_cost_goes_as_far_as_the_budget_lets_it():
    p = Problem.random(0, 1)
    p.b, p.now = p.g[None].copy(), np.array([-0.05])
    x, can = chosen(p)
    assert can and p.g @ x == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize("metric", pcpo.PROJECTED)
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_a_step_of_pcpo_is_the_projection_of_a_quadratic_programme(seed, k, metric):
    p = Problem.random(seed, k)
    near = p.near()
    up = RADIUS * np.linalg.solve(p.h, p.g) / np.sqrt(p.g @ np.linalg.solve(p.h, p.g))
    inner = p.h if metric == "kl" else np.eye(12)
    solver = osqp.OSQP()
    solver.setup(
        sparse.csc_matrix(inner),
        -inner @ up,
        sparse.csc_matrix(p.b),
        np.full(k, -np.inf),
        -p.now,
        eps_abs=1e-10,
        eps_rel=1e-10,
        max_iter=100_000,
        verbose=False,
    )
    x = pcpo.PROJECTED[metric](near, p.now, RADIUS).double().numpy()
    assert np.allclose(x, solver.solve(raise_error=True).x, atol=2e-5)
    if k == 1:  # eq. 11
        back = np.linalg.solve(inner, p.b[0])
        eq11 = up - max(0, (p.b[0] @ up + p.now[0]) / (p.b[0] @ back)) * back
        assert np.allclose(x, eq11, atol=2e-5)
