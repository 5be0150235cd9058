"""Steps of a trust region against dense algebra, and those of CPO and PCPO against convex solvers."""

import dataclasses

import numpy as np
import osqp
import pytest
import torch
from point_mass import PointMass
from scipy import sparse
from scipy.optimize import minimize

from palmar.policies.algorithms import cpo, pcpo, trpo_lagrangian
from palmar.policies.networks import Actor
from palmar.policies.rl.episodes import World
from palmar.policies.rl.learner import Space
from palmar.policies.rl.trust_region import Near, Wanted, conjugate_gradients, fisher, orthonormal, parameters, search

DELTA = 0.01
RADIUS = np.sqrt(2 * DELTA)
SMALL = trpo_lagrangian.Config(
    num_envs=16, steps=32, minibatch=64, hidden=(16,), budgets={"disc": 0.05, "wall": 0.1}, kl_limit=DELTA, damping=0.1
)


def seen(config=SMALL):
    """A learner after its first rollout, and what it collected."""
    learner = trpo_lagrangian.Learner(config, Space.of(PointMass(config.num_envs), config.budgets))
    learner.collect(World(PointMass(config.num_envs), 0))
    return learner, learner.batch()


def wanted(batch, now=(-0.5, -0.5)):
    advantage = batch.advantage - batch.advantage.mean(0)
    return Wanted(advantage / advantage.std(0), torch.tensor(now))


def numbers(actor):
    return torch.cat([p.detach().flatten() for p in parameters(actor)])


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
        """The least ``cost`` within budgets, ball or both, by sequential quadratic programming from several starts."""
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


def test_the_metric_is_the_fisher_information():
    generator = torch.Generator().manual_seed(0)
    actor = Actor(3, 2, (4,), std=0.5, gain=1.0, generator=generator)
    obs = torch.randn(7, 3, generator=generator)
    jacobian = []
    for mean in actor(obs).flatten():
        grads = torch.autograd.grad(mean, parameters(actor)[1:], retain_graph=True)
        jacobian.append(torch.cat([torch.zeros(2), *(g.flatten() for g in grads)]))
    jacobian = torch.stack(jacobian)
    dense = jacobian.T @ jacobian / 0.5**2 / len(obs) + torch.diag(torch.tensor([2.0] * 2 + [0.0] * 26))
    v = torch.randn(5, 28, generator=generator)
    product = fisher(actor, obs, damping=0.03)
    assert torch.allclose(torch.stack([product(x) for x in v]), v @ dense + 0.03 * v, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_conjugate_gradients_solve_and_say_what_is_missing(steps):
    p = Problem.random(0, 1)
    h, b = torch.as_tensor(p.h), torch.as_tensor(p.g)
    x, missing = conjugate_gradients(lambda v: h @ v, b, steps)
    assert torch.allclose(missing, b - h @ x, atol=1e-10)
    assert (missing.norm() < 1e-4 * b.norm()) == (steps == 50)


@pytest.mark.parametrize("steps", [2, 50])
def test_directions_are_orthonormal_however_far_conjugate_gradients_got(steps):
    p = Problem.random(1, 3)
    h, slopes = torch.as_tensor(p.h), torch.as_tensor(np.vstack([p.g, p.b, 0 * p.g, p.b[0] * 2]))
    basis = orthonormal(lambda v: h @ v, slopes, steps)
    assert len(basis) == 4 and torch.allclose(
        basis @ h @ basis.T, torch.eye(4).double(), atol=1e-5 if steps > 2 else 0.2
    )


def test_near_by_signals_are_linear_and_the_divergence_is_half_the_square_of_the_step():
    learner, batch = seen()
    signals = wanted(batch, (-9.0, -9.0))
    near = Near.of(learner, batch, signals, SMALL)
    gain, begin = near.rows()[0], numbers(learner.actor)
    y = 0.004 * gain / np.linalg.norm(gain) + np.array([0.002, -0.002, 0.002])
    x = near.step(y)
    log = search(learner, batch, signals, near, x, SMALL)
    with torch.no_grad():
        change = signals.change(learner.actor, batch).numpy()
    assert log["step"] == 1.0 and torch.allclose(numbers(learner.actor), begin + x, atol=1e-6)
    assert np.allclose(change, near.rows() @ y, rtol=0.1, atol=2e-5)
    assert log["kl"] == pytest.approx((y @ y - SMALL.damping * (x @ x).item()) / 2, rel=0.1)


def test_a_spread_at_its_bound_is_no_way_to_lower_costs():
    learner, batch = seen(dataclasses.replace(SMALL, std_range=(0.5, 0.5)))
    bound = Near.of(learner, batch, wanted(batch), SMALL)
    learner, batch = seen()
    free = Near.of(learner, batch, wanted(batch), SMALL)
    assert not bound.slopes[:, :2].any() and not bound.basis[:, :2].any() and free.slopes[:, :2].all()
    assert torch.equal(bound.slopes[:, 2:], free.slopes[:, 2:])


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


def test_the_search_shortens_a_step_until_the_divergence_is_within_its_limit():
    learner, batch = seen()
    reward = Wanted(wanted(batch).advantage[:, :1], torch.zeros(0))
    near = Near.of(learner, batch, reward, SMALL)
    log = search(learner, batch, reward, near, near.step(100 * RADIUS * np.sign(near.rows()[0])), SMALL)
    assert 0 < log["step"] <= 0.0101 and 0.2 * DELTA < log["kl"] <= DELTA


def test_a_step_that_loses_reward_is_refused_said_and_undone_unless_a_budget_is_overrun():
    learner, batch = seen()
    begin, one = numbers(learner.actor), wanted(batch).advantage[:, [0, 0]]  # the reward is the cost

    def tried(now):
        signals = Wanted(one, torch.tensor([now]))
        near = Near.of(learner, batch, signals, SMALL)
        return search(learner, batch, signals, near, near.step(-RADIUS * np.sign(near.rows()[0])), SMALL)

    log = tried(-0.5)
    assert log["step"] == 0 and log["refused/reward"] == SMALL.tries and torch.equal(numbers(learner.actor), begin)
    log = tried(0.3)
    assert log["step"] > 0 and log["gain"] < 0 and log["recovering"] == 1


def test_a_step_that_overruns_a_budget_more_than_it_was_meant_to_is_refused():
    learner, batch = seen()
    begin, one = numbers(learner.actor), wanted(batch).advantage[:, [1, 1]]  # the reward is the cost

    def tried(now):
        signals = Wanted(one, torch.tensor([now]))
        near = Near.of(learner, batch, signals, SMALL)
        step = near.step(RADIUS * np.sign(near.rows()[0]))
        blind = dataclasses.replace(near, slopes=torch.zeros_like(near.slopes))  # it means to cost nothing
        return search(learner, batch, signals, blind, step, SMALL)

    log = tried(0.0)
    assert log["step"] == 0 and log["refused/cost"] == SMALL.tries and torch.equal(numbers(learner.actor), begin)
    log = tried(-9.0)
    assert log["step"] > 0 and log["gain"] > 0


@pytest.mark.parametrize("module", [trpo_lagrangian, cpo, pcpo])
def test_where_nothing_can_be_gained_the_policy_stays(module):
    config = module.Config(**{k: getattr(SMALL, k) for k in ("num_envs", "steps", "minibatch", "hidden", "budgets")})
    learner = module.Learner(config, Space.of(PointMass(config.num_envs), config.budgets))
    world = World(PointMass(config.num_envs), 0)
    learner.collect(world)
    learner.rollout.reward.zero_()
    with torch.no_grad():
        for p in learner.critic.reward.parameters():
            p.zero_()
    begin = numbers(learner.actor)
    log = learner.update(world.pause())
    assert torch.equal(numbers(learner.actor), begin) and log["step"] == log["kl"] == 0
