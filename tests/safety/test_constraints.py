"""The constraint file: its three laws at the level of functions, and what it refuses."""

from dataclasses import fields, replace
from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml

from palmar.safety.constraints import HARD_ROWS, SOFT_ROWS, ConstraintSet, load, parse
from palmar.safety.robot import Limits, RobotModel
from palmar.safety.rows import KINDS
from palmar.safety.stop import FAILURES
from palmar.safety.types import ConfigError, Measurement

N = 5
LIMITS = Limits(
    q_min=np.full(N, -2.0), q_max=np.full(N, 2.0), v_max=np.full(N, 2.0), a_max=np.full(N, 10.0),
    j_max=np.full(N, 5000.0), tau_max=np.full(N, 40.0), curve_offset=np.full(N, 0.3),
    curve_two_a=np.full(N, 12.0), curve_q_up=np.full(N, 2.1), curve_q_low=np.full(N, -2.1),
)  # fmt: skip
TEXT = (files("palmar.configs") / "constraints" / "arm_hand.yaml").read_text()
FILE = parse(TEXT, LIMITS)


def samples(rng, *lead, spread=1.3) -> Measurement:
    """Random measurements, each constraint violated by some."""

    def u(*shape, scale=1.0):
        return rng.uniform(-spread * scale, spread * scale, (*lead, *shape))

    return Measurement(
        t=np.broadcast_to(np.arange(lead[0]).reshape(-1, *[1] * (len(lead) - 1)) * 0.005, lead).astype(float),
        q=u(N, scale=1.7), qd=u(N, scale=2), tau=u(N, scale=33), u=u(N, scale=1.7), ud=u(N, scale=1.7),
        udd=u(N, scale=9), uddd=u(N, scale=4500), palm_position=u(3, scale=0.3) + [0.5, 0, 0.4],
        clearance_self=u(scale=0.05) + 0.04, clearance_table=u(scale=0.05) + 0.04,
        contact_force=np.abs(u(5, scale=25)), object_position=np.abs(u(2, 3, scale=0.1)),
        object_quaternion=u(2, 4),
    )  # fmt: skip


def as_torch(m: Measurement, dtype) -> Measurement:
    return Measurement(
        **{
            f.name: torch.tensor(np.ascontiguousarray(getattr(m, f.name)), dtype=dtype)
            for f in fields(m)
            if getattr(m, f.name) is not None
        }
    )


def test_same_function_numpy_and_torch():
    m = samples(np.random.default_rng(0), 40, 64)
    exact = FILE.over(m, FILE.start(m.at(0)), dt=0.005)
    for dtype, band in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        t = as_torch(m, dtype)
        other = FILE.over(t, FILE.start(t.at(0)), dt=0.005)
        scale = np.abs(exact.margin).max(axis=0) + 1.0
        assert np.abs(other.margin.numpy() - exact.margin).max(axis=0) == pytest.approx(0, abs=1) and np.all(
            np.abs(other.margin.numpy() - exact.margin) <= band * 10 * scale
        )
        np.testing.assert_allclose(other.cost.numpy(), exact.cost, atol=1e-4)


def test_same_samples_are_violated_one_by_one_and_together():
    m = samples(np.random.default_rng(1), 30, 8)
    carry, per_tick = FILE.start(m.at(0)), []
    for s in range(30):
        value, carry = FILE.margins(m.at(s), carry)
        per_tick.append(value)
    margins = np.stack(per_tick)
    together = FILE.over(m, FILE.start(m.at(0)), dt=0.005)
    np.testing.assert_array_equal(together.margin, margins.min(axis=0))
    for k, c in enumerate(FILE.constraints):
        if c.unit == "s":
            np.testing.assert_allclose(together.cost[:, k], 0.005 * (margins[..., k] < 0).sum(axis=0))
        else:
            bad = np.concatenate([np.zeros((1, 8), bool), margins[..., k] < 0])
            np.testing.assert_array_equal(together.cost[:, k], (bad[1:] & ~bad[:-1]).sum(axis=0))


def test_every_constraint_is_violated_by_some_sample_and_kept_by_others():
    m = samples(np.random.default_rng(2), 60, 32)
    carry, rows = FILE.start(m.at(0)), []
    for s in range(60):
        value, carry = FILE.margins(m.at(s), carry)
        rows.append(value)
    share = (np.stack(rows) < 0).mean(axis=(0, 1))
    assert np.all(share > 0) and np.all(share < 1), dict(zip(FILE.names, share, strict=True))


def test_a_measurement_alone_has_the_margins_it_has_among_others():
    m = samples(np.random.default_rng(9), 4, 8)
    among, _ = FILE.margins(m, FILE.start(m))
    for index in np.ndindex(4, 8):
        alone = m.at(index)
        np.testing.assert_array_equal(FILE.margins(alone, FILE.start(alone))[0], among[index])


def mirrored(limits: Limits) -> Limits:
    """Limits of a robot that looks like this one in a mirror: every joint turns the other way."""
    swap = {"q_min": "q_max", "q_max": "q_min", "curve_q_up": "curve_q_low", "curve_q_low": "curve_q_up"}
    return replace(limits, **{a: -getattr(limits, b) for a, b in swap.items()})


@pytest.mark.parametrize("name", ["joint_position", "joint_velocity", "joint_acceleration", "joint_jerk"])
def test_a_mirrored_robot_has_the_same_margins(name):
    m = samples(np.random.default_rng(10), 400, 1)
    ours = replace(LIMITS, q_min=np.full(N, -1.0), curve_q_low=np.full(N, -1.1))
    turned = m.replace(**{k: -getattr(m, k) for k in ("q", "qd", "u", "ud", "udd", "uddd")})
    margins = [
        parse(TEXT, limits).select((name,)).margins(seen, {})[0]
        for limits, seen in ((ours, m), (mirrored(ours), turned))
    ]
    np.testing.assert_allclose(*margins, atol=1e-12)


def test_a_loaded_joint_may_lean_three_hundredths_into_its_stop_but_not_be_sent_there():
    c = FILE.select(("joint_position",))
    buffer, still = c["joint_position"].params["buffer"], samples(np.random.default_rng(11), 1, spread=0.0).at(0)
    for by, fine in ((0.029, True), (0.031, False)):
        for end in (LIMITS.q_max + by - buffer, LIMITS.q_min - by + buffer):
            assert bool(c.margins(still.replace(q=end), {})[0] >= 0) is fine
            assert bool(c.margins(still.replace(u=end), {})[0] >= 0) is False


def test_an_interval_cut_in_two_costs_the_same():
    m = samples(np.random.default_rng(3), 20, 6)
    whole = FILE.over(m, FILE.start(m.at(0)), dt=0.005)
    first = FILE.over(m.at(slice(0, 7)), FILE.start(m.at(0)), dt=0.005)
    second = FILE.over(m.at(slice(7, None)), first.carry, dt=0.005)
    np.testing.assert_allclose(first.cost + second.cost, whole.cost, atol=1e-12)
    np.testing.assert_array_equal(np.minimum(first.margin, second.margin), whole.margin)


def test_coarser_sampling_never_finds_a_smaller_margin():
    m = samples(np.random.default_rng(4), 24, 16)
    memoryless = FILE.select(tuple(c.name for c in FILE.constraints if not c.remembers))
    fine = memoryless.over(m, memoryless.start(m.at(0)), dt=0.005)
    coarse = memoryless.over(m.at(slice(3, None, 4)), memoryless.start(m.at(0)), dt=0.02)
    assert np.all(coarse.margin >= fine.margin) and np.any(coarse.margin > fine.margin)


def test_zero_is_safe():
    c = FILE.select(("table_clearance",))
    m = samples(np.random.default_rng(5), 3, 1)
    limit = c["table_clearance"].params["limit"]
    for height, cost in ((limit, 0.0), (np.nextafter(limit, 0), 0.015)):
        level = m.replace(clearance_table=np.full((3, 1), height))
        assert c.over(level, {}, dt=0.005).cost[0, 0] == pytest.approx(cost)


def mutated(name, **params) -> ConstraintSet:
    raw = yaml.safe_load(TEXT)
    raw["constraints"][name]["params"].update(params)
    return parse(yaml.safe_dump(raw, sort_keys=False), LIMITS)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("joint_position", {"buffer": 0.5}), ("self_clearance", {"limit": 0.02}), ("table_clearance", {"limit": 0.03}),
        ("workspace", {"lower": [0.4, -0.2, 0.2]}), ("table_force", {"limit": 1.0}), ("grip_force", {"limit": 5.0}),
        ("dropped_object", {"fall": 0.02}),
    ],
)  # fmt: skip
def test_mutating_a_limit_changes_its_cost_and_no_other(name, params):
    m = samples(np.random.default_rng(6), 40, 32)
    a = FILE.over(m, FILE.start(m.at(0)), dt=0.005).cost.sum(axis=0)
    other = mutated(name, **params)
    b = other.over(m, other.start(m.at(0)), dt=0.005).cost.sum(axis=0)
    assert [n for n, x, y in zip(FILE.names, a, b, strict=True) if x != y] == [name]
    assert other.hash() != FILE.hash()


@pytest.mark.parametrize("field", ["v_max", "a_max", "j_max", "tau_max", "q_max"])
def test_mutating_a_limit_of_the_robot_changes_its_cost(field):
    m = samples(np.random.default_rng(7), 40, 32)
    tight = replace(LIMITS, **{field: getattr(LIMITS, field) * 0.7})
    a, b = (parse(TEXT, limits).over(m, FILE.start(m.at(0)), dt=0.005).cost.sum() for limits in (LIMITS, tight))
    assert b > a


def test_a_drop_is_one_event_and_its_memory_starts_afresh():
    c = FILE.select(("dropped_object",))
    z = np.array([0.02, 0.12, 0.12, 0.05, 0.05, 0.13, 0.05])
    m = samples(np.random.default_rng(8), 7, 1)
    p = np.zeros((7, 1, 2, 3))
    p[:, 0, 0, 2] = z
    m = m.replace(object_position=p)
    result = c.over(m, c.start(m.at(0)), dt=0.005)
    assert result.cost[0, 0] == 2
    assert c.over(m.at(slice(3, 5)), c.start(m.at(3)), dt=0.005).cost[0, 0] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(version=2), "version"),
        (lambda r: r.update(extra=1), "extra"),
        (lambda r: r["constraints"]["workspace"].update(margin="wrkspace"), "workspace"),
        (lambda r: r["constraints"]["workspace"].update(runtime="hard"), "hard row"),
        (lambda r: r["constraints"]["workspace"].update(budget=-1), "budget"),
        (lambda r: r["constraints"]["workspace"].update(budget=float("nan")), "budget"),
        (lambda r: r["constraints"]["workspace"].update(budget=float("inf")), "budget"),
        (lambda r: r["constraints"]["workspace"].update(unit="steps"), "events"),
        (lambda r: r["constraints"]["workspace"].update(limits=3), "limits"),
        (lambda r: r["constraints"]["workspace"].update(params={"low": 1}), "lower"),
        (lambda r: r["constraints"]["table_force"].update(runtime="hard row"), "source"),
        (lambda r: r["constraints"]["dropped_object"].update(memory="none"), "memory"),
        (lambda r: r["constraints"]["workspace"].pop("signal"), "signal"),
        (lambda r: r.update(constraints={}), "non-empty"),
    ],
)
def test_files_that_cannot_be_meant_are_refused_by_name(change, words):
    raw = yaml.safe_load(TEXT)
    change(raw)
    with pytest.raises(ConfigError, match=words):
        parse(yaml.safe_dump(raw), LIMITS)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"[1, 2", b"just words", b"!!python/object/apply:os.system ['true']"]
)
def test_files_that_are_no_constraint_files_are_refused(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load(path, LIMITS)
    with pytest.raises(ConfigError, match="nowhere"):
        load(tmp_path / "nowhere.yaml", LIMITS)


@pytest.mark.parametrize("name", ["v_max", "a_max", "j_max", "tau_max"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_limits_of_a_robot_are_positive_in_every_joint(name, value):
    one = getattr(LIMITS, name).copy()
    one[3] = value
    with pytest.raises(ConfigError, match=f"{name} must be positive"):
        replace(LIMITS, **{name: one})


@pytest.mark.parametrize("raw", [{}, {"limits": {}}, []])
def test_what_is_no_robot_model_is_refused(raw):
    with pytest.raises(ConfigError, match="not a robot model|limits"):
        RobotModel.from_json(raw)


def test_hash_ignores_layout_and_notices_values():
    assert parse(yaml.safe_dump(yaml.safe_load(TEXT), sort_keys=False), LIMITS).hash() == FILE.hash()
    assert mutated("table_force", limit=5.1).hash() != FILE.hash()


@pytest.mark.parametrize(
    ("margin", "runtime", "accepted"),
    [("contact_force", "hard row", False), ("wrench", "soft row", False), ("joint_torque", "hard row", False),
     ("joint_torque", "soft row", True), ("joint_torque", "monitor", True), ("self_clearance", "soft row", True)],
)  # fmt: skip
def test_what_the_filter_does_not_enforce_cannot_be_called_a_row(margin, runtime, accepted):
    one = next((c for c in FILE.constraints if c.margin == margin), FILE.constraints[0])
    if one.margin != margin:
        one = replace(one, name=margin, margin=margin, params={"force": 1.0}, runtime="monitor")
    if accepted:
        assert replace(one, runtime=runtime, source="measured").runtime == runtime
    else:
        with pytest.raises(ConfigError, match=f"no {runtime} for margin {margin}, only for .*self_clearance"):
            replace(one, runtime=runtime, source="measured")


def test_the_margins_that_may_be_rows_are_those_of_the_problem_and_of_the_proof():
    of_the_proof = set(FAILURES) - {"", "verifier_effort"}
    assert HARD_ROWS | SOFT_ROWS == set(KINDS.values()) | of_the_proof
    assert not HARD_ROWS & SOFT_ROWS and of_the_proof <= HARD_ROWS
