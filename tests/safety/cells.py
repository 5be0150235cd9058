"""Cells with random boxes and people, and how far a robot is from them by plain distances."""

import numpy as np

from palmar.safety import obstacles as cell
from palmar.safety.types import People


def rotation(rng):
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def boxed(rng, *, limit=0.0, n=1, at=0.5):
    """A cell with n random boxes."""
    o = cell.nothing()
    for k in range(n):
        cell.put_box(o, k, rng.normal(size=3) * at, rotation(rng), rng.uniform(0.03, 0.3, 3))
        o.kind[k], o.region[k], o.limit[k] = cell.KEEP_OUT, k, limit
    return o._replace(count=n, fixed=n)


def someone(ends, radius, velocity=None):
    return People(np.asarray(ends, float), np.asarray(radius, float), np.zeros((len(radius), 3)), 0.0)


def clearance(kin, o, q, kind):
    """Smallest distance of a moving link to the obstacles of a kind, without bounds of any sort."""
    ends = kin.place(q)[4]
    slots = [k for k in range(o.count) if o.kind[k] == kind]
    return min(cell.obstacle_gap(kin.tree, ends, g, o, k, np.inf) for k in slots for g in kin.tree.moving)
