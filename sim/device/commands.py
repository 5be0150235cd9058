"""Joint commands of a control step on a device, at the physics rate: ``safety.tracking``, as in ``VectorEnv``."""

from __future__ import annotations

import torch
from torch import Tensor

from palmar.safety import tracking
from palmar.safety.robot import Limits


class Commands:
    """What B robots were last told, and how it goes on."""

    def __init__(self, limits: Limits, *, batch: int, substeps: int, dt: float):
        """``limits`` are tensors, see ``constraints.limits_on``."""
        self._limits, self._substeps, self._dt = limits, substeps, dt
        like = torch.zeros_like(torch.as_tensor(limits.q_min)).expand(batch, -1)
        self._u, self._ud, self._udd, self._reference = (like.clone() for _ in range(4))

    def reset(self, mask: Tensor, q: Tensor) -> None:
        """Stand still at q (B, n) in the worlds of ``mask`` (B,)."""
        row = mask[:, None]
        for value in (self._u, self._reference):
            value.copy_(torch.where(row, q, value))
        for value in (self._ud, self._udd):
            value.masked_fill_(row, 0.0)

    def to(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positions, velocities, accelerations and jerks on the way to ``target`` (B, n), (S, B, n) each."""
        dt, period, rows = self._dt, self._substeps * self._dt, []
        u, ud, udd = self._u, self._ud, self._udd
        for s in range(self._substeps):
            phase = (s + 1) / (self._substeps + 1e-9)
            r, rd = tracking.interpolate(self._reference, target, phase=phase, period=period)
            x = tracking.box_limited(tracking.toward(u, ud, r, rd), udd, u, ud, limits=self._limits, dt=dt)
            jerk, (u, ud) = (x - udd) / dt, tracking.integrate(u, ud, x, dt=dt)
            udd = x
            rows.append((u, ud, udd, jerk))
        for value, new in ((self._u, u), (self._ud, ud), (self._udd, udd), (self._reference, target)):
            value.copy_(new)
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))  # type: ignore[return-value]
