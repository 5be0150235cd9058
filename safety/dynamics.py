"""Rigid-body dynamics of a robot: mass matrix and inverse dynamics, compiled.

One link per joint: bodies that no joint moves are part of the link they are fixed to.  A link's frame has its
origin on the joint's axis and z along it, so that a joint turns about z: constants are taken once from the
robot's MJCF at its rest pose, nothing is asked of MuJoCo after that.  Inverse dynamics is recursive
Newton-Euler in link frames, the mass matrix composite rigid bodies about the world's origin.
Source: Featherstone, Rigid Body Dynamics Algorithms (2008), chapters 5 and 6.

Arms compensate their own gravity, so a torque of Palmar is without it; ``gravity`` puts it in.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import mujoco
import numpy as np
from numba import njit

from palmar.safety.geometry import Kinematics

Array = np.ndarray


class Inertia(NamedTuple):
    """Links of a robot, hardware order; n joints, n links."""

    parent: Array
    """(n,) link that carries each link, -1 for the world."""
    order: Array
    """(n,) links, every one after its parent."""
    frame: Array
    """(n, 12) link frame in its parent's, in the rest pose: rotation by rows, origin [m]."""
    zero: Array
    """(n,) joint position of the rest pose [rad]."""
    body: Array
    """(n, 10) mass [kg], mass times centre of mass [kg m] and inertia xx, yy, zz, xy, xz, yz about the frame's
    origin [kg m2], in the link frame."""
    armature: Array
    """(n,) rotor inertia seen at the joint [kg m2]."""
    gravity: Array
    """(3,) [m/s2], zero where the robot compensates it."""
    place: Array
    """Scratch, (n, 12): ``frame`` in the world."""
    sums: Array
    """Scratch, (n, 10): ``body`` of all that a joint carries, in the world about its origin."""
    motion: Array
    """Scratch, (n, 24): rotation to the parent, angular velocity and acceleration, acceleration, force, torque."""


def inertia_of(kin: Kinematics, *, gravity: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Inertia:
    """Links of a robot, from the compiled MJCF of its kinematics.

    Args:
        kin: The robot's kinematics.
        gravity: Gravity that the torques should include, world frame [m/s2].
    """
    tree, model, n = kin.tree, kin.model, len(kin.dof)
    zero = tree.zero[tree.joint_body]
    p, r, axis, anchor, _ = (x.copy() for x in kin.place(zero))
    link = _links(tree.parent, tree.joint)
    frame = np.array([_along(z) for z in axis])
    up = tree.parent[tree.joint_body]
    above = np.where(up < 0, -1, link[up])
    mass, moment, inertia = np.zeros(n), np.zeros((n, 3)), np.zeros((n, 3, 3))
    for b in range(len(link)):
        if (j := link[b]) < 0:
            continue
        inner = np.empty(9)
        mujoco.mju_quat2Mat(inner, model.body_iquat[b + 1])
        turn = frame[j].T @ r[b] @ inner.reshape(3, 3)
        m, c = model.body_mass[b + 1], frame[j].T @ (p[b] + r[b] @ model.body_ipos[b + 1] - anchor[j])
        mass[j] += m
        moment[j] += m * c
        inertia[j] += turn @ np.diag(model.body_inertia[b + 1]) @ turn.T + m * (c @ c * np.eye(3) - np.outer(c, c))
    base = [np.eye(3) if i < 0 else frame[i] for i in above]
    start = [np.zeros(3) if i < 0 else anchor[i] for i in above]
    return Inertia(
        parent=above,
        order=np.argsort(tree.joint_body, kind="stable"),
        frame=np.array([[*(base[j].T @ frame[j]).flat, *(base[j].T @ (anchor[j] - start[j]))] for j in range(n)]),
        zero=zero,
        body=np.column_stack([mass, moment, inertia[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]]),
        armature=model.dof_armature[kin.dof].copy(),
        gravity=np.array(gravity, dtype=np.float64),
        place=np.zeros((n, 12)),
        sums=np.zeros((n, 10)),
        motion=np.zeros((n, 24)),
    )


def _links(parent: Array, joint: Array) -> Array:
    """Link of each body, -1 for what stands on the world, (b,)."""
    link = np.full(len(parent), -1)
    for b in range(len(parent)):
        link[b] = joint[b] if joint[b] >= 0 else link[parent[b]] if parent[b] >= 0 else -1
    return link


def _along(z: Array) -> Array:
    """A rotation whose third column is z, (3, 3)."""
    x = np.cross(np.eye(3)[int(np.abs(z).argmin())], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=-1)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _place(b, q):
    """World rotation and origin of every link at q (n,), into ``b.place``."""
    for j in b.order:
        i, w, f = b.parent[j], b.place[j], b.frame[j]
        c, s = math.cos(q[j] - b.zero[j]), math.sin(q[j] - b.zero[j])
        for k in range(3):
            if i < 0:
                x, y, z, o = f[3 * k], f[3 * k + 1], f[3 * k + 2], f[9 + k]
            else:
                u, v, t = b.place[i, 3 * k], b.place[i, 3 * k + 1], b.place[i, 3 * k + 2]
                x = u * f[0] + v * f[3] + t * f[6]
                y = u * f[1] + v * f[4] + t * f[7]
                z = u * f[2] + v * f[5] + t * f[8]
                o = b.place[i, 9 + k] + u * f[9] + v * f[10] + t * f[11]
            w[3 * k], w[3 * k + 1], w[3 * k + 2], w[9 + k] = c * x + s * y, c * y - s * x, z, o


@njit(cache=True, nogil=True, fastmath={"contract"})
def _to_world(b, j):
    """Mass, moment and inertia of link j about the world's origin, into ``b.sums``."""
    w, s, h = b.place[j], b.sums[j], b.body[j]
    m, hx, hy, hz = h[0], h[1], h[2], h[3]
    xx, yy, zz, xy, xz, yz = h[4], h[5], h[6], h[7], h[8], h[9]
    # rows of rotation times inertia, then times the transposed rotation
    a0, a1, a2 = w[0] * xx + w[1] * xy + w[2] * xz, w[0] * xy + w[1] * yy + w[2] * yz, w[0] * xz + w[1] * yz + w[2] * zz
    b0, b1, b2 = w[3] * xx + w[4] * xy + w[5] * xz, w[3] * xy + w[4] * yy + w[5] * yz, w[3] * xz + w[4] * yz + w[5] * zz
    c0, c1, c2 = w[6] * xx + w[7] * xy + w[8] * xz, w[6] * xy + w[7] * yy + w[8] * yz, w[6] * xz + w[7] * yz + w[8] * zz
    gx = w[0] * hx + w[1] * hy + w[2] * hz
    gy = w[3] * hx + w[4] * hy + w[5] * hz
    gz = w[6] * hx + w[7] * hy + w[8] * hz
    # the moment about the origin, less half the shift of the frame: what the parallel axes need
    ox, oy, oz = w[9], w[10], w[11]
    tx, ty, tz = 2.0 * gx + m * ox, 2.0 * gy + m * oy, 2.0 * gz + m * oz
    s[0], s[1], s[2], s[3] = m, gx + m * ox, gy + m * oy, gz + m * oz
    s[4] = a0 * w[0] + a1 * w[1] + a2 * w[2] + oy * ty + oz * tz
    s[5] = b0 * w[3] + b1 * w[4] + b2 * w[5] + ox * tx + oz * tz
    s[6] = c0 * w[6] + c1 * w[7] + c2 * w[8] + ox * tx + oy * ty
    s[7] = a0 * w[3] + a1 * w[4] + a2 * w[5] - 0.5 * (ox * ty + oy * tx)
    s[8] = a0 * w[6] + a1 * w[7] + a2 * w[8] - 0.5 * (ox * tz + oz * tx)
    s[9] = b0 * w[6] + b1 * w[7] + b2 * w[8] - 0.5 * (oy * tz + oz * ty)


@njit(cache=True, nogil=True, fastmath={"contract"})
def mass_matrix(b, q, out):
    """Joint-space mass matrix, armature included.

    Args:
        b: ``Inertia``.
        q: Positions [rad], (n,).
        out: Out: mass matrix [kg m2], (n, n).
    """
    _place(b, q)
    n = len(q)
    for j in range(n):
        _to_world(b, j)
        for i in range(n):
            out[j, i] = 0.0
    for t in range(n - 1, -1, -1):
        j = b.order[t]
        s, w = b.sums[j], b.place[j]
        zx, zy, zz, ox, oy, oz = w[2], w[5], w[8], w[9], w[10], w[11]
        vx, vy, vz = oy * zz - oz * zy, oz * zx - ox * zz, ox * zy - oy * zx
        m, hx, hy, hz = s[0], s[1], s[2], s[3]
        # momentum, linear and about the origin, of what joint j carries when it turns at 1 rad/s
        px, py, pz = m * vx + zy * hz - zz * hy, m * vy + zz * hx - zx * hz, m * vz + zx * hy - zy * hx
        lx = s[4] * zx + s[7] * zy + s[8] * zz + hy * vz - hz * vy
        ly = s[7] * zx + s[5] * zy + s[9] * zz + hz * vx - hx * vz
        lz = s[8] * zx + s[9] * zy + s[6] * zz + hx * vy - hy * vx
        i = j
        while i >= 0:
            u = b.place[i]
            # angular momentum about joint i's origin, along its axis
            ax, ay, az = u[10] * pz - u[11] * py, u[11] * px - u[9] * pz, u[9] * py - u[10] * px
            x = u[2] * (lx - ax) + u[5] * (ly - ay) + u[8] * (lz - az)
            out[i, j] = out[j, i] = x
            i = b.parent[i]
        out[j, j] += b.armature[j]
        if b.parent[j] >= 0:
            up = b.sums[b.parent[j]]
            for k in range(10):
                up[k] += s[k]


@njit(cache=True, nogil=True, fastmath={"contract"})
def inverse_dynamics(b, q, v, a, out):
    """Torques that make the robot move: ``M(q) a + c(q, v)``, armature included, and gravity if ``b`` has it.

    Args:
        b: ``Inertia``.
        q: Positions [rad], (n,).
        v: Velocities [rad/s], (n,).
        a: Accelerations [rad/s2], (n,).
        out: Out: torques [N m], (n,).
    """
    for j in b.order:
        _forward(b, j, math.cos(q[j] - b.zero[j]), math.sin(q[j] - b.zero[j]), v[j], a[j])
    for t in range(len(q) - 1, -1, -1):
        j = b.order[t]
        e, i = b.motion[j], b.parent[j]
        out[j] = e[23] + b.armature[j] * a[j]
        if i < 0:
            continue
        up, d = b.motion[i], b.frame[j, 9:]
        fx = e[0] * e[18] + e[1] * e[19] + e[2] * e[20]
        fy = e[3] * e[18] + e[4] * e[19] + e[5] * e[20]
        fz = e[6] * e[18] + e[7] * e[19] + e[8] * e[20]
        up[18] += fx
        up[19] += fy
        up[20] += fz
        up[21] += e[0] * e[21] + e[1] * e[22] + e[2] * e[23] + d[1] * fz - d[2] * fy
        up[22] += e[3] * e[21] + e[4] * e[22] + e[5] * e[23] + d[2] * fx - d[0] * fz
        up[23] += e[6] * e[21] + e[7] * e[22] + e[8] * e[23] + d[0] * fy - d[1] * fx


@njit(cache=True, nogil=True)
def mass_and_bias(b, q, v, zero, matrix, bias):
    """``mass_matrix`` and, for accelerations ``zero`` (n,), ``inverse_dynamics``: one call instead of two."""
    mass_matrix(b, q, matrix)
    inverse_dynamics(b, q, v, zero, bias)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _forward(b, j, c, s, v, a):
    """Motion of link j and the force and torque it needs, in its own frame."""
    e, i, g, d = b.motion[j], b.parent[j], b.frame[j], b.frame[j, 9:]
    for k in range(3):
        x, y = g[3 * k], g[3 * k + 1]
        e[3 * k], e[3 * k + 1], e[3 * k + 2] = c * x + s * y, c * y - s * x, g[3 * k + 2]
    if i < 0:
        wx = wy = wz = ax = ay = az = 0.0
        x, y, z = -b.gravity[0], -b.gravity[1], -b.gravity[2]
    else:
        u = b.motion[i]
        wx, wy, wz, ax, ay, az = u[9], u[10], u[11], u[12], u[13], u[14]
        dot, square = wx * d[0] + wy * d[1] + wz * d[2], wx * wx + wy * wy + wz * wz
        x = u[15] + ay * d[2] - az * d[1] + dot * wx - square * d[0]
        y = u[16] + az * d[0] - ax * d[2] + dot * wy - square * d[1]
        z = u[17] + ax * d[1] - ay * d[0] + dot * wz - square * d[2]
    px, py = e[0] * wx + e[3] * wy + e[6] * wz, e[1] * wx + e[4] * wy + e[7] * wz
    pz = e[2] * wx + e[5] * wy + e[8] * wz + v
    rx = e[0] * ax + e[3] * ay + e[6] * az + py * v
    ry = e[1] * ax + e[4] * ay + e[7] * az - px * v
    rz = e[2] * ax + e[5] * ay + e[8] * az + a
    lx, ly, lz = e[0] * x + e[3] * y + e[6] * z, e[1] * x + e[4] * y + e[7] * z, e[2] * x + e[5] * y + e[8] * z
    e[9], e[10], e[11], e[12], e[13], e[14], e[15], e[16], e[17] = px, py, pz, rx, ry, rz, lx, ly, lz
    m, h, t = b.body[j, 0], b.body[j, 1:4], b.body[j, 4:]
    dot, square = px * h[0] + py * h[1] + pz * h[2], px * px + py * py + pz * pz
    e[18] = m * lx + ry * h[2] - rz * h[1] + dot * px - square * h[0]
    e[19] = m * ly + rz * h[0] - rx * h[2] + dot * py - square * h[1]
    e[20] = m * lz + rx * h[1] - ry * h[0] + dot * pz - square * h[2]
    kx, ky = t[0] * px + t[3] * py + t[4] * pz, t[3] * px + t[1] * py + t[5] * pz
    kz = t[4] * px + t[5] * py + t[2] * pz
    e[21] = t[0] * rx + t[3] * ry + t[4] * rz + py * kz - pz * ky + h[1] * lz - h[2] * ly
    e[22] = t[3] * rx + t[1] * ry + t[5] * rz + pz * kx - px * kz + h[2] * lx - h[0] * lz
    e[23] = t[4] * rx + t[5] * ry + t[2] * rz + px * ky - py * kx + h[0] * ly - h[1] * lx
