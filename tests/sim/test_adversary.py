"""Laws of adversaries: no budget is ever exceeded, and none changes nothing."""

from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
from attacked import DOFS, FULL, IO, MODEL, PERIOD, B, moment, surface
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mujoco.batch import Batch

from palmar.safety.types import CommandRefused, ConfigError
from palmar.sim.adversary import Attack, Budget, Learned, Ledger, Limited, Surface, limited, perceived
from palmar.sim.attacks import Constant, Noise, Push

NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=64)


def any_attack(numbers=NUMBER):
    shapes = ((B, MODEL.nbody, 6), (B, 2), (B, 7))
    return st.tuples(*(arrays(np.float64, s, elements=numbers, fill=numbers) for s in shapes)).map(lambda x: Attack(*x))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(any_attack() | any_attack(st.floats(-20, 20)), min_size=1, max_size=6),
    arrays(np.float32, (B, 7), elements=st.floats(-100, 100, width=32)),
)
def test_no_budget_is_ever_exceeded(attacks, obs):
    """Numbers of any size from floating point; sums are taken anew, not from the ledger."""
    where, ledger = surface(), Ledger(np.zeros(B), np.zeros(B))
    push, twist = np.zeros(B), np.zeros(B)
    for attack in attacks:
        out, ledger = limited(attack, ledger, where, period=PERIOD)
        force = np.linalg.norm(out.wrench[..., :3], axis=-1)
        torque = np.linalg.norm(out.wrench[..., 3:], axis=-1)
        push, twist = push + force.sum(1) * PERIOD, twist + (torque.sum(1) + np.abs(out.torque).sum(1)) * PERIOD
        assert force.max() <= FULL.force and torque.max() <= FULL.torque
        assert np.abs(out.torque).max() <= FULL.joint_torque
        others = np.setdiff1d(np.arange(MODEL.nbody), where.bodies)
        assert not out.wrench[:, others].any() and not out.delta[:, :4].any()
        assert np.abs(out.delta[:, 4:]).max() <= 0.01
        seen = perceived(obs, out, where)
        assert seen.dtype == obs.dtype
        assert np.all(np.abs(seen.astype(np.float64) - obs.astype(np.float64)) <= where.eps)
    assert push.max() <= FULL.impulse * (1 + 1e-12) and twist.max() <= FULL.angular_impulse * (1 + 1e-12)


@settings(max_examples=50, deadline=None)
@given(any_attack(st.floats(-0.2, 0.2)))
def test_what_is_within_the_budget_passes_unchanged(attack):
    where = surface(Budget(5.0, 5.0, 5.0, bodies=("arm", "hand", "cube"), observation=dict.fromkeys(IO.obs_names, 1.0)))
    attack.wrench[:, 0] = 0.0
    out, _ = limited(attack, Ledger(np.zeros(B), np.zeros(B)), where, period=PERIOD)
    for f in ("wrench", "torque", "delta"):
        np.testing.assert_array_equal(getattr(out, f), getattr(attack, f))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["wrench", "torque", "delta"])
def test_what_is_not_finite_is_refused_and_nothing_is_spent(bad, part):
    class Broken:
        def start(self, batch):
            return 0

        def act(self, seen, carry):
            out = surface().nothing(B)
            out.torque[:] = 1.0
            getattr(out, part)[1, ..., -1] = bad
            return out, carry

    guard = Limited(Broken(), surface(), batch=B, period=PERIOD)
    with pytest.raises(CommandRefused, match=f"{part} of world 1"):
        guard.attack(moment(0.0))
    assert not guard.spent.angular_impulse.any()


def test_wrong_shapes_and_unknown_names_are_refused():
    out = surface().nothing(B)
    with pytest.raises(CommandRefused, match="torque has shape"):
        limited(Attack(out.wrench, out.torque[:2], out.delta), Ledger(np.zeros(B), np.zeros(B)), surface(), period=1.0)
    with pytest.raises(ConfigError, match="did you mean 'cube'"):
        surface(Budget(bodies=("cub",)))
    with pytest.raises(ConfigError, match="part of the observation 'tips'"):
        surface(Budget(observation={"tips": 0.1}))
    for wrong in ({"force": -1.0}, {"force": np.nan}, {"observation": {"q": -0.1}}):
        with pytest.raises(ConfigError):
            Budget(**wrong)
    with pytest.raises(ConfigError, match=r"\[0, 5.0\] N"):
        Push(surface(), MODEL.body("cube").id, at=0, duration=1, force=6.0)
    with pytest.raises(ConfigError, match="may not be pushed"):
        Push(surface(), MODEL.body("arm").id, at=0, duration=1, force=1.0)


def simulate(guard, steps=12, substeps=10, trouble=None):
    """States and observations of B worlds under an adversary, stepped as the environment does; None: none at all."""
    batch = Batch(MODEL, nsim=B, nthread=1)
    batch.bind("qpos")[:, 0] = [0.0, 0.1, 0.2]
    batch.forward()
    out = []
    for k in range(steps):
        obs = np.concatenate([batch.qpos[:, :2], batch.qvel[:, :2], batch.qpos[:, 2:5]], axis=1).astype(np.float32)
        if guard is not None:
            attack = guard.attack(moment(k * PERIOD, obs))
            batch.xfrc_applied = attack.wrench
            batch.bind("qfrc_applied")[:, DOFS] = attack.torque
            obs = guard.perceived(obs, attack)
            if trouble is not None:
                trouble.append(attack)
        batch.ctrl[:] = -obs[:, :2]
        batch.step(nstep=substeps)
        out.append((batch.state.copy(), obs))
    return out


@pytest.mark.parametrize("adversary", [Noise, Constant])
def test_with_a_budget_of_nothing_a_run_is_bit_identical(adversary):
    free = simulate(None)
    nothing = Budget(bodies=("cube", "hand"), observation={"cube": 0.0})
    bound = simulate(Limited(adversary(surface(nothing)), surface(nothing), batch=B, period=PERIOD))
    for (state, obs), (other, seen) in zip(free, bound, strict=True):
        assert obs.tobytes() == seen.tobytes()
        spec = mujoco.mjtState.mjSTATE_PHYSICS
        size = mujoco.mj_stateSize(MODEL, spec) + 1  # after the time
        np.testing.assert_array_equal(state[:, :size], other[:, :size])
    zeros = np.full((B, 7), -0.0, dtype=np.float32)
    assert perceived(zeros, surface().nothing(B), surface()).tobytes() == zeros.tobytes()
    troubled = simulate(Limited(adversary(surface()), surface(), batch=B, period=PERIOD))
    assert np.any(troubled[-1][0] != free[-1][0]) and np.any(troubled[0][1] != free[0][1])


def test_impulse_is_what_momentum_says():
    """A free body without friction: the ledger's impulse is its mass times its change of speed."""
    body = "<body name='cube'><freejoint/><geom size='.1'/></body>"
    xml = f"<mujoco><option gravity='0 0 0'/><worldbody>{body}</worldbody></mujoco>"
    model = mujoco.MjModel.from_xml_string(xml)
    where = Surface.of(model, SimpleNamespace(n=0), IO, Budget(force=3.0, impulse=0.4, bodies=("cube",)))
    guard = Limited(
        Push(where, 1, at=0.1, duration=10.0, force=3.0, direction=(1.0, 2.0, -1.0)), where, batch=B, period=0.02
    )
    batch = Batch(model, nsim=B, nthread=1)
    qvel, mass = batch.bind("qvel"), model.body("cube").mass[0]
    for k in range(12):
        batch.xfrc_applied = guard.attack(moment(0.02 * k)).wrench
        batch.step(nstep=10)
        np.testing.assert_allclose(mass * np.linalg.norm(qvel[:, :3], axis=1), guard.spent.impulse, rtol=1e-9)
        expected = min(max(k - 4, 0) * 0.06, 0.4)
        np.testing.assert_allclose(guard.spent.impulse, expected, rtol=1e-9)


def test_the_ledger_starts_again_with_each_episode():
    where = surface(Budget(joint_torque=1.0, angular_impulse=0.05))
    guard = Limited(Constant(where), where, batch=B, period=PERIOD)
    first = guard.attack(moment(0.0))
    second = guard.attack(moment(0.05))
    third = guard.attack(moment([0.1, 0.0, 0.1]))  # world 1 began anew
    assert np.abs(first.torque).sum(1) == pytest.approx([1.0] * B)
    assert not np.abs(second.torque).max() > 1e-9
    assert np.abs(third.torque).sum(1) == pytest.approx([0.0, 1.0, 0.0], abs=1e-9)
    fourth = guard.attack(moment([0.15, 0.0, 0.15]))  # and again, after a single step
    assert np.abs(fourth.torque).sum(1) == pytest.approx([0.0, 1.0, 0.0], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_learned_policy_is_an_adversary_and_its_budget_holds(data):
    where = surface()
    action = data.draw(arrays(np.float64, (B, where.size), elements=NUMBER))

    class Policy:
        def start(self, batch):
            return 0

        def act(self, obs, carry):
            return action, carry + 1

    guard = Limited(Learned(Policy(), where), where, batch=B, period=PERIOD)
    attack = guard.attack(moment(0.0))
    assert np.linalg.norm(attack.wrench[..., :3], axis=-1).max() <= FULL.force
    assert guard.spent.impulse.max() <= FULL.impulse and guard.spent.angular_impulse.max() <= FULL.angular_impulse
    share = np.clip(action, -1, 1)
    np.testing.assert_allclose(attack.delta[:, 4:], share[:, -3:] * 0.01, rtol=1e-12)
    with pytest.raises(CommandRefused, match="adversary's action has shape"):
        Learned(SimpleNamespace(act=lambda obs, carry: (action[:, :-1], carry)), where).act(moment(0.0), 0)
