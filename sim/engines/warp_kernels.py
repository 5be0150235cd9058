"""Warp kernels beside MuJoCo Warp's own: commands in, samples and clearances out.  No postponed annotations here."""

# Warp compiles what is below; its annotations are not types that Python knows.
# pyright: reportIndexIssue=false, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportAssignmentType=false, reportReturnType=false, reportGeneralTypeIssues=false

import warp as wp


@wp.kernel
def send(step: int, commands: wp.array3d[float], actuator: wp.array[int], ctrl: wp.array2d[float]):
    """Controls of one physics step: ``ctrl[:, actuator] = commands[step]``; (S, B, n), (n,), (B, nu)."""
    world, joint = wp.tid()
    ctrl[world, actuator[joint]] = commands[step, world, joint]


@wp.kernel
def place_mocap(
    step: int,
    poses: wp.array4d[float],
    position: wp.array2d[wp.vec3],
    quaternion: wp.array2d[wp.quat],
):
    """Scripted bodies of one physics step from poses (S, B, c, 7); MuJoCo Warp keeps w-x-y-z in a ``quat``."""
    world, body = wp.tid()
    position[world, body] = wp.vec3(
        poses[step, world, body, 0], poses[step, world, body, 1], poses[step, world, body, 2]
    )
    quaternion[world, body] = wp.quat(
        poses[step, world, body, 3],
        poses[step, world, body, 4],
        poses[step, world, body, 5],
        poses[step, world, body, 6],
    )


@wp.kernel
def copy_row(step: int, row: wp.array2d[float], rows: wp.array3d[float]):
    """``rows[step] = row``; (B, w) into (S, B, w)."""
    world, column = wp.tid()
    rows[step, world, column] = row[world, column]


@wp.kernel
def copy_point(step: int, body: int, points: wp.array2d[wp.vec3], rows: wp.array2d[wp.vec3]):
    """``rows[step] = points[:, body]``; (B, nbody) into (S, B)."""
    world = wp.tid()
    rows[step, world] = points[world, body]


@wp.func
def segment_square(r: wp.vec3, d: wp.vec3, e: wp.vec3) -> float:
    """Square distance of the segments s d and -r + t e, s and t in [-1, 1]: ``distances.segment_segment`` [m2]."""
    aa = wp.dot(d, d)
    ee = wp.dot(e, e)
    ae = wp.dot(d, e)
    c = wp.dot(d, r)
    g = wp.dot(e, r)
    det = aa * ee - ae * ae
    best = wp.float32(1.0e30)
    if det > 2.0e-6 * aa * ee:
        s = wp.clamp((ae * g - c * ee) / det, -1.0, 1.0)
        t = (g + s * ae) / ee
        if t < -1.0 or t > 1.0:
            t = wp.clamp(t, -1.0, 1.0)
            s = wp.clamp((t * ae - c) / aa, -1.0, 1.0)
        x = r + s * d - t * e
        best = wp.dot(x, x)
    else:
        for k in range(4):
            s = wp.float32(0.0)
            t = wp.float32(0.0)
            if k < 2:
                s = 2.0 * float(k) - 1.0
                if ee > 0.0:
                    t = wp.clamp((g + s * ae) / ee, -1.0, 1.0)
            else:
                t = 2.0 * float(k) - 5.0
                if aa > 0.0:
                    s = wp.clamp((t * ae - c) / aa, -1.0, 1.0)
            x = r + s * d - t * e
            best = wp.min(best, wp.dot(x, x))
    return best


@wp.kernel
def clearances(
    step: int,
    far: float,
    xpos: wp.array2d[wp.vec3],
    xmat: wp.array2d[wp.mat33],
    half: wp.array[float],
    radius: wp.array[float],
    pairs: wp.array2d[int],
    table: wp.array[int],
    own: wp.array2d[float],
    low: wp.array2d[float],
):
    """Smallest distance of any pair below ``far`` and smallest height above the table [m]; ``PoseGeometry``.

    One thread per world and pair or table geom; ``own`` and ``low`` (S, B) hold ``far`` and infinity before.
    """
    world, item = wp.tid()
    count = pairs.shape[0]
    if item < count:
        a = pairs[item, 0]
        b = pairs[item, 1]
        r = xpos[world, a] - xpos[world, b]
        touch = radius[a] + radius[b]
        if wp.length(r) - half[a] - half[b] - touch < far:
            d = half[a] * wp.vec3(xmat[world, a][0, 2], xmat[world, a][1, 2], xmat[world, a][2, 2])
            e = half[b] * wp.vec3(xmat[world, b][0, 2], xmat[world, b][1, 2], xmat[world, b][2, 2])
            gap = wp.sqrt(segment_square(r, d, e)) - touch
            if gap < far:
                wp.atomic_min(own, step, world, gap)
    else:
        g = table[item - count]
        wp.atomic_min(low, step, world, xpos[world, g][2] - half[g] * wp.abs(xmat[world, g][2, 2]) - radius[g])
