"""Many small convex QPs at once: a primal-dual interior-point method with a fixed number of steps.

    minimise 1/2 |z - w|^2   subject to   low <= z_bounded <= high,   G z >= d

Arrays of any namespace of the array API, leading dimension B; no branch on data, so it runs on a GPU as it is.
Source: Mehrotra, "On the implementation of a primal-dual interior point method", SIAM J. Optim. 2 (1992).

Where the namespace differentiates, the answer's derivatives are those of the solution itself, by the implicit function
theorem: the steps run on constants, and one last Newton step carries the derivatives.
"""

from __future__ import annotations

from typing import NamedTuple

from palmar.safety.namespace import namespace
from palmar.safety.types import Array

STEPS = 35
STEP_BACK = 0.995
"""Part of the way to the nearest wall that a step goes."""
TOUCH, WALL = 2.0, 500.0
"""Complementarity that is aimed at, in parts of the rounding: constant, and by the square of the multiplier."""

LOST = 1e8
"""A multiplier as large as this belongs to a problem without a solution, which is left as it is."""


class Solved(NamedTuple):
    """The answers of a batch."""

    z: Array
    """(B, N)."""
    dual: Array
    """Multipliers >= 0 of low, high, rows: (B, 2 n + m)."""
    violation: Array
    """Largest amount by which a row or bound is not met, (B,)."""
    stationary: Array
    """Largest entry of the gradient of the Lagrangian, in parts of 1 + |z|, (B,)."""
    gap: Array
    """Largest product of a multiplier and its room, (B,)."""


class QP(NamedTuple):
    """B problems: ``w`` (B, N), ``low`` and ``high`` of the first n variables (B, n), ``g`` (B, m, N), ``d`` (B, m)."""

    w: Array
    low: Array
    high: Array
    g: Array
    d: Array

    def up(self, z: Array) -> Array:
        """Left sides of ``C z >= b``: (B, N) to (B, 2 n + m)."""
        n = self.low.shape[-1]
        return namespace(z).concat([z[:, :n], -z[:, :n], _apply(self.g, z)], axis=-1)

    def down(self, y: Array) -> Array:
        """The transpose of ``up``: (B, 2 n + m) to (B, N)."""
        xp, n = namespace(y), self.low.shape[-1]
        rows = _apply(xp.matrix_transpose(self.g), y[:, 2 * n :])
        return xp.concat([rows[:, :n] + y[:, :n] - y[:, n : 2 * n], rows[:, n:]], axis=-1)

    @property
    def b(self) -> Array:
        """Right sides, (B, 2 n + m)."""
        return namespace(self.w).concat([self.low, -self.high, self.d], axis=-1)

    def hessian(self, weight: Array) -> Array:
        """``I + C^T diag(weight) C``, (B, N, N)."""
        xp, n, size = namespace(self.w), self.low.shape[-1], self.w.shape[-1]
        own = xp.concat([weight[:, :n] + weight[:, n : 2 * n], xp.zeros_like(self.w[:, n:])], axis=-1) + 1.0
        eye = xp.eye(size, dtype=self.w.dtype, device=self.w.device)
        return own[:, :, None] * eye + xp.matrix_transpose(self.g) @ (weight[:, 2 * n :, None] * self.g)


def solve(problem: QP, *, steps: int = STEPS) -> Solved:
    """Solve every problem of a batch.

    A joint whose bounds coincide is taken out first: the method needs room on both sides of a wall.  A problem without
    a solution ends with a large ``violation``.
    """
    xp = namespace(problem.w)
    problem = _without_fixed(problem)
    c = QP(*(_constant(x) for x in problem))
    eps = float(xp.finfo(c.w.dtype).eps)
    n = c.low.shape[-1]
    z = xp.concat([xp.clip(c.w[:, :n], c.low, c.high), c.w[:, n:]], axis=-1)
    s = xp.maximum(c.up(z) - c.b, xp.zeros_like(c.b) + 0.1)
    dual = xp.zeros_like(s) + 10.0
    for _ in range(steps):
        z, s, dual = _step(c, z, s, dual, eps)
    # One more Newton step, on the live problem with constant weights.
    weight = _weight(dual, s, eps)
    h = c.hessian(weight)
    inverse = xp.linalg.inv(h)
    push = dual + (_aim(dual, eps) - s * dual) / s - weight * (problem.up(z) - problem.b - s)
    live = problem.down(push) - (z - problem.w)
    dz = _apply(inverse, live)
    z = z + dz + _apply(inverse, live - _apply(h, dz))
    stationary = xp.max(xp.abs(z - problem.w - problem.down(dual)) / (1.0 + xp.abs(z)), axis=-1)
    room = problem.up(z) - problem.b
    return Solved(z, dual, xp.max(-room, axis=-1), stationary, xp.max(xp.abs(dual * room), axis=-1))


def _step(c: QP, z: Array, s: Array, dual: Array, eps: float) -> tuple[Array, Array, Array]:
    """One predictor-corrector step."""
    xp = namespace(z)
    weight = _weight(dual, s, eps)
    h = c.hessian(weight)
    inverse = xp.linalg.inv(h)
    rp, rd = c.up(z) - c.b - s, z - c.w - c.down(dual)

    def newton(rc: Array) -> tuple[Array, Array, Array]:
        right = c.down(rc / s - weight * rp) - rd
        dz = _apply(inverse, right)
        dz = dz + _apply(inverse, right - _apply(h, dz))  # what rounding of the inverse cost
        ds = c.up(dz) + rp
        return dz, ds, (rc - dual * ds) / s

    mu = xp.mean(s * dual, axis=-1, keepdims=True)
    _, ds, dl = newton(-s * dual)
    reach = xp.minimum(_reach(s, ds), _reach(dual, dl))
    after = xp.mean((s + reach * ds) * (dual + reach * dl), axis=-1, keepdims=True)
    target = xp.maximum((after / mu) ** 3 * mu, _aim(dual, eps))
    dz, ds, dl = newton(target - s * dual - reach * reach * ds * dl)
    part = STEP_BACK * xp.minimum(_reach(s, ds), _reach(dual, dl))
    part = xp.where(xp.max(dual, axis=-1, keepdims=True) < LOST, part, 0.0 * part)
    return z + part * dz, s + part * ds, dual + part * dl


def _aim(dual: Array, eps: float) -> Array:
    """Complementarity that is enough, (B, 2 n + m).

    A wall that is only just touched is missed by its root; at one that presses, the room left grows with the
    multiplier, so that the weights, and with them the loss of digits, stay bounded.
    """
    xp = namespace(dual)
    return eps * xp.maximum(xp.zeros_like(dual) + TOUCH, WALL * dual * dual)


def _weight(dual: Array, s: Array, eps: float) -> Array:
    """Weights of the walls, (B, 2 n + m), as large as they can be beside the identity of the cost."""
    xp = namespace(dual)
    return xp.minimum(dual / s, xp.zeros_like(s) + 0.05 / eps)


def _reach(x: Array, dx: Array) -> Array:
    """Largest part of dx, at most 1, that keeps x > 0; (B, 1)."""
    xp = namespace(x)
    ratio = xp.where(dx < 0, -x / xp.where(dx < 0, dx, -xp.ones_like(dx)), xp.ones_like(x) * 1e9)
    return xp.clip(xp.min(ratio, axis=-1, keepdims=True), 0.0, 1.0)


def _without_fixed(p: QP) -> QP:
    """The same problems with fixed joints moved to the right side: their bounds opened, their cost centred."""
    xp, n = namespace(p.w), p.low.shape[-1]
    narrow = 1e-9 if float(xp.finfo(p.w.dtype).eps) < 1e-10 else 1e-5
    fixed = p.high - p.low < narrow
    keep = xp.astype(~fixed, p.w.dtype)
    value = 0.5 * (p.low + p.high) * (1.0 - keep)
    g = xp.concat([p.g[:, :, :n] * keep[:, None, :], p.g[:, :, n:]], axis=-1)
    return QP(
        w=xp.concat([p.w[:, :n] * keep + value, p.w[:, n:]], axis=-1),
        low=p.low - (1.0 - keep),
        high=p.high + (1.0 - keep),
        g=g,
        d=p.d - _apply(p.g[:, :, :n], value),
    )


def _apply(matrix: Array, x: Array) -> Array:
    """Product of matrices (B, m, k) and vectors (B, k), (B, m)."""
    return (matrix @ x[..., None])[..., 0]


def _constant(x: Array) -> Array:
    """``x`` without its history, where the namespace keeps one."""
    return x.detach() if hasattr(x, "detach") else x
