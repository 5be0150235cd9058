"""Laws of scripted adversaries: they come when they should, and the greedy one is the worst of its kind."""

import mujoco
import numpy as np
from attacked import DOFS, MODEL, PERIOD, B, moment, surface
from mujoco.batch import Batch

from palmar.sim.adversary import Attack, Budget, Limited
from palmar.sim.attacks import Constant, Foresight, Noise, Nothing, Push, WorstOf


def test_a_constant_bias_changes_only_between_episodes():
    where = surface(Budget(observation={"q": 0.1, "qd": 0.2, "cube": 0.3}))
    guard = Limited(Constant(where), where, batch=B, period=PERIOD)
    deltas = [guard.attack(moment(t)).delta for t in (0.0, 0.05, 0.1, 0.0)]
    np.testing.assert_array_equal(deltas[0], deltas[2])
    np.testing.assert_array_equal(np.abs(deltas[0]), np.tile(np.repeat([0.1, 0.2, 0.3], (2, 2, 3)), (B, 1)))
    assert np.any(deltas[3] != deltas[0])


def test_a_push_comes_when_it_should():
    where = surface(Budget(force=5.0, bodies=("cube",)))
    push = Push(where, MODEL.body("cube").id, at=0.1, duration=0.1, force=4.0)
    guard = Limited(push, where, batch=B, period=PERIOD)
    hit = [guard.attack(moment(k * PERIOD)).wrench[:, MODEL.body("cube").id] for k in range(6)]
    length = np.linalg.norm(hit, axis=-1)
    np.testing.assert_allclose(length, np.tile([[0], [0], [4], [4], [0], [0]], B), atol=1e-12)
    np.testing.assert_array_equal(hit[2], hit[3])  # one direction per episode, level
    assert not np.array(hit)[..., 2:].any()


def tilt(states, sensors):
    """Harm: the angle of the arm a tenth of a second after the step, if nothing slows it."""
    return states[:, -1, 1] + 0.1 * states[:, -1, 1 + MODEL.nq]


def greedy(count, where, batch):
    """The worst of ``count`` noises, by simulation of the worlds of ``batch``."""
    spec = mujoco.mjtState.mjSTATE_FULLPHYSICS

    def now():
        rows = np.empty((B, mujoco.mj_stateSize(MODEL, spec)))
        for w in range(B):
            mujoco.mj_getState(MODEL, batch.get_data(w), rows[w], spec)
        return rows, batch.bind("ctrl").copy()

    harm = Foresight(MODEL, states=now, dofs=DOFS, steps=10, judge=tilt)
    return WorstOf(where, [Noise(where, seed=s) for s in range(count)], harm)


def test_foresight_is_what_then_happens():
    """Harm predicted for the chosen attack is the harm measured when it is carried out."""
    where = surface(Budget(1.0, 0.1, 2.0, bodies=("hand",)))
    batch = Batch(MODEL, nsim=B, nthread=1)
    batch.bind("qpos")[:, 0] = [0.0, 0.1, 0.2]
    batch.forward()
    adversary = greedy(6, where, batch)
    carry = adversary.start(B)
    for k in range(4):
        attack, carry = adversary.act(moment(k * PERIOD), carry)
        predicted = adversary.harm(
            moment(0.0), Attack(*(x[None] for x in (attack.wrench, attack.torque, attack.delta)))
        )
        batch.xfrc_applied = attack.wrench
        batch.bind("qfrc_applied")[:, DOFS] = attack.torque
        batch.step(nstep=10)
        np.testing.assert_allclose(batch.qpos[:, 0] + 0.1 * batch.qvel[:, 0], predicted[0], rtol=1e-12)


def test_of_several_the_worst_is_chosen_per_world_and_nothing_if_none_is_worse():
    where = surface(Budget(joint_torque=1.0))
    asked = []

    def harm(seen, attacks):
        asked.append(attacks)
        return attacks.torque[..., 0] * np.array([1.0, -1.0, 0.0])  # world 2 does not mind

    adversary = WorstOf(where, [Noise(where, seed=s) for s in range(5)], harm)
    carry = adversary.start(B)
    for k in range(5):
        chosen, carry = adversary.act(moment(k * PERIOD), carry)
        first = asked[-1].torque[:, :, 0]
        assert len(first) == 6 and not first[0].any()
        assert chosen.torque[0, 0] == first[:, 0].max() and chosen.torque[1, 0] == first[:, 1].min()
        assert not chosen.torque[2].any()


def test_the_greedy_adversary_does_more_harm_than_those_it_chooses_from():
    """Same budget, same proposals: the arm is tilted further, and in every world."""
    where = surface(Budget(joint_torque=0.5))

    def run(make):
        batch = Batch(MODEL, nsim=B, nthread=1)
        batch.forward()
        guard, total = Limited(make(batch), where, batch=B, period=PERIOD), np.zeros(B)
        for k in range(30):
            batch.bind("qfrc_applied")[:, DOFS] = guard.attack(moment(k * PERIOD)).torque
            total += batch.rollout(10, record=("qpos",))["qpos"][:, :, 0].mean(axis=1)
        return total

    each = [run(lambda _, s=s: Noise(where, seed=s)) for s in range(6)]
    best, nothing = run(lambda batch: greedy(6, where, batch)), run(lambda _: Nothing(where))
    assert np.all(best > np.max(each, axis=0)) and np.all(best > nothing)
