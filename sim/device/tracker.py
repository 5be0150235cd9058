"""``sim.tracker.Tracker`` on a device: an object tracker with a rate, noise, delay and dropout, masks for indices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from palmar.sim.tracker import TrackerConfig


class Tracker:
    """Poses of m objects in B worlds as a tracker reports them; see ``sim.tracker.Tracker``."""

    def __init__(self, config: TrackerConfig, *, batch: int, objects: int, generator: torch.Generator):
        self.config, self._generator = config, generator
        self._slots = max(1, math.ceil(config.delay * config.rate) + 1)
        make = {"dtype": torch.float64, "device": generator.device}
        self._next = torch.zeros(batch, **make)
        self._due = torch.full((self._slots, batch), torch.inf, **make)
        self._pending = torch.zeros(self._slots, batch, objects, 7, **make)
        self._pose = torch.zeros(batch, objects, 7, **make)
        self._age = torch.arange(self._slots, device=generator.device)[:, None]

    @property
    def position(self) -> Tensor:
        """Last delivered positions [m], (B, m, 3)."""
        return self._pose[..., :3]

    @property
    def quaternion(self) -> Tensor:
        """Last delivered orientations, w-x-y-z, (B, m, 4)."""
        return self._pose[..., 3:]

    def reset(self, mask: Tensor, position: Tensor, quaternion: Tensor) -> None:
        """Deliver a first frame in the worlds of ``mask`` (B,), whose time is 0; phases of the frames are random."""
        phase = torch.rand(self._next.shape, **self._draw()) / self.config.rate
        self._next.copy_(torch.where(mask, phase, self._next))
        self._due.masked_fill_(mask, torch.inf)
        self._pose.copy_(torch.where(mask[:, None, None], self._noisy(position, quaternion), self._pose))

    def update(self, t: Tensor, position: Tensor, quaternion: Tensor) -> None:
        """Expose and deliver what is due at times t (B,), given true poses (B, m, 3) and (B, m, 4)."""
        self._expose(t, position, quaternion)
        ready = self._due <= t
        newest = self._due.masked_fill(~ready, -torch.inf).argmax(dim=0)
        pick = newest[None, :, None, None].expand(1, *self._pose.shape)
        pose = self._pending.gather(0, pick)[0]
        self._pose.copy_(torch.where(ready.any(dim=0)[:, None, None], pose, self._pose))
        self._due.masked_fill_(ready, torch.inf)

    def _expose(self, t: Tensor, position: Tensor, quaternion: Tensor) -> None:
        c = self.config
        frame = t >= self._next
        later = self._next + 1 / c.rate * torch.ceil((t - self._next) * c.rate + 1e-9)
        self._next.copy_(torch.where(frame, later, self._next))
        seen = frame & (torch.rand(t.shape, **self._draw()) >= c.dropout)
        slot = torch.isinf(self._due).to(torch.int8).argmax(dim=0)
        into = seen & (self._age == slot)  # (slots, B)
        self._due.copy_(torch.where(into, t + c.delay, self._due))
        fresh = self._noisy(position, quaternion)
        self._pending.copy_(torch.where(into[..., None, None], fresh, self._pending))

    def _noisy(self, position: Tensor, quaternion: Tensor) -> Tensor:
        c = self.config
        p = position + c.noise * torch.randn(position.shape, **self._draw())
        half = 0.5 * c.angle_noise * torch.randn(position.shape, **self._draw())
        w, v = quaternion[..., :1], quaternion[..., 1:]
        turned = torch.cat([w - (v * half).sum(-1, keepdim=True), v + w * half + torch.linalg.cross(half, v)], dim=-1)
        return torch.cat([p, turned / turned.norm(dim=-1, keepdim=True)], dim=-1)

    def _draw(self) -> dict:
        return {"generator": self._generator, "dtype": torch.float64, "device": self._generator.device}
