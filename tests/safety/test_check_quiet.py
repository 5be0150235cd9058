"""Motion without fault makes the check say nothing."""

import mujoco
import numpy as np
import pytest
from watched_plant import DT, Bench


def wander(b, kind):
    """A new goal, now and then."""
    m, rng = b.robot.limits, b.rng
    reach = {"nominal": 0.1, "aggressive": 0.35, "squeeze": 0.1}[kind]
    if b.k % (150 if kind == "aggressive" else 500) == 0:
        b.goal = np.clip(b.robot.home + rng.uniform(-1, 1, b.robot.n) * reach, m.q_min + 0.02, m.q_max - 0.02)
        b.goal[1] = min(b.goal[1], b.robot.home[1])  # stays above the table, for a blocked arm is a finding
        if kind != "nominal":
            b.goal[7:] = np.clip(b.goal[7:] + rng.uniform(-1, 1, 16) * 1.5, m.q_min[7:], m.q_max[7:])


def squeeze(b):
    """Put a weightless block among the fingers, where it touches nothing, and close them on it."""
    p, m = b.plant, b.robot.limits
    model, data, block = p.model, p.data, p.model.body("red_cube")
    at, free = data.joint("red_cube_free"), []
    data.xfrc_applied[block.id, 2] = -model.opt.gravity[2] * model.body_mass[block.id]
    tips = np.mean([data.geom(g).xpos for g in b.robot.tip_geoms], axis=0)
    before = data.qpos.copy()
    for _ in range(300):
        at.qpos[:3], at.qvel[:] = tips + b.rng.uniform(-0.06, 0.06, 3), 0.0
        mujoco.mj_fwdPosition(model, data)
        geoms = model.geom_bodyid[data.contact.geom]
        if not np.any(geoms == block.id):
            free.append(at.qpos.copy())
            break
    if not free:
        data.qpos[:] = before
    b.goal[7:] = np.where(b.rng.random(16) < 0.7, m.q_max[7:] - 0.05, b.goal[7:])
    return bool(free)


def false_trips(kind, *, seconds, seed, latency, quantised):
    b, found = Bench(seed=seed, latency=latency, quantised=quantised), []
    for _ in range(int(seconds / DT)):
        wander(b, kind)
        if kind == "squeeze" and b.k % 1000 == 250:
            b.squeezed += squeeze(b)
        b.pushed = max(b.pushed, float(np.abs(b.plant.q - b.u)[7:].max()))
        if (event := b.tick()) is not None:
            found.append((b.k, event, b.check.detail))
            b.check.resume()
    return found, b


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("kind", ["nominal", "aggressive", "squeeze"])
def test_motion_without_fault_is_no_finding(kind, quantised):
    found, b = false_trips(kind, seconds=4, seed=1, latency=2, quantised=quantised)
    assert found == [] and b.check.counts["implausible"] == 0
    assert kind != "squeeze" or (b.squeezed >= 2 and b.pushed > 0.3)


@pytest.mark.slow
@pytest.mark.parametrize("latency", [1, 2, 3])
@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("kind", ["nominal", "aggressive", "squeeze"])
def test_twenty_minutes_of_motion_without_fault_are_no_finding(kind, quantised, latency):
    for seed in range(3):
        found, _ = false_trips(kind, seconds=24, seed=seed, latency=latency, quantised=quantised)
        assert found == []
