"""Environments whose worlds differ from the model, and that somebody attacks."""

from dataclasses import replace

import numpy as np
import pytest

from palmar.safety.types import CommandRefused
from palmar.sim.adversary import Budget
from palmar.sim.attacks import Constant, Noise, Push
from palmar.sim.env import make_env
from palmar.sim.kinematics import Kinematics
from palmar.sim.reality import named
from palmar.sim.tasks.lift import LiftConfig, LiftTask

B = 3
PUSH = Budget(force=8.0, bodies=("red_cube",), observation={"block_position": 0.01, "q": 0.05})


def make(robot, constraints=None, **kwargs):
    return make_env(LiftTask(LiftConfig()), robot, constraints, num_envs=B, seed=kwargs.pop("seed", 6), **kwargs)


def roll(env, steps=5):
    rng, out = np.random.default_rng(0), [env.reset(6)]
    return out + [env.step(rng.uniform(-1, 1, (B, env.action_dim))).obs for _ in range(steps)]


def push(surface):
    body = int(surface.bodies[0])
    return Push(surface, body=body, at=0.0, duration=0.2, force=8.0, direction=(1.0, 0.0, 0.0))


@pytest.mark.parametrize("extra", [{"reality": named("none")}, {"adversary": (Noise, Budget())}])
def test_a_reality_without_differences_and_an_attack_without_budget_change_no_bit(robot, extra):
    assert all(np.array_equal(a, b) for a, b in zip(roll(make(robot)), roll(make(robot, **extra)), strict=True))


def test_worlds_differ_from_the_model_and_from_each_other_the_same_way_for_the_same_seed(robot, constraints):
    one, two = (make(robot, constraints, reality=named("train")) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(roll(one), roll(two), strict=True))
    mass = one.engine.batch.expanded("body_mass")
    link = one.engine.model.body("fr3_link4").id
    assert len(set(mass[:, link])) == B and one.engine.model.body_mass[link] not in mass[:, link]


def test_a_policy_reads_its_sensors_and_rewards_see_the_truth(robot, constraints):
    env = make(robot, constraints, reality=named("train"))
    roll(env)
    assert env.drawn is not None
    read, true = env.drawn.sensors.q, env.engine.q
    hand = robot.n_arm
    assert 0.002 < np.abs(read - true)[:, hand:].max() < 0.3
    assert np.array_equal(env._hand().palm, Kinematics(robot, B).hand(true).palm)
    assert not np.allclose(env._hand().tips, env.io.hand.tips, atol=1e-5)


def test_commands_reach_servos_late_and_are_told_as_sent(robot, constraints):
    slow = named("train")
    slow = replace(slow, actuators=replace(slow.actuators, arm_delay=(0.02, 0.02), hand_delay=(0.02, 0.02), jitter=0.0))
    env, seen = make(robot, constraints, reality=slow), []
    advance = env.engine.advance
    env.engine.advance = lambda *u, **k: seen.append((u[0], k["applied"])) or advance(*u, **k)
    roll(env)
    sent, applied = (np.concatenate([s[k] for s in seen]) for k in (0, 1))
    late = round(0.02 / env.engine.dt)
    assert np.array_equal(applied[late:], sent[:-late]) and not np.array_equal(applied, sent)
    assert np.array_equal(env.engine.measure().u, sent[-1])


def test_an_attack_pushes_and_deceives_within_its_budget(robot):
    calm, env = make(robot), make(robot, adversary=(push, PUSH))
    roll(calm)
    roll(env)
    moved = np.linalg.norm(env.engine.objects()[0][:, 0] - calm.engine.objects()[0][:, 0], axis=1)
    assert moved.min() > 0.01
    honest, told = make(robot).reset(6), make(robot, adversary=(Constant, replace(PUSH, force=0.0))).reset(6)
    env = make(robot)
    at = np.cumsum((0, *env.io.obs_sizes))
    for k, name in enumerate(env.io.obs_names):
        off = np.abs(told - honest)[:, at[k] : at[k + 1]].max()
        assert off == pytest.approx(PUSH.observation.get(name, 0.0), rel=1e-3), name


def test_an_adversary_that_answers_nonsense_is_refused(robot):
    class Mad(Noise):
        def act(self, moment, carry):
            attack, carry = super().act(moment, carry)
            return replace(attack, torque=np.full_like(attack.torque, np.nan)), carry

    with pytest.raises(CommandRefused, match="finite"):
        make(robot, adversary=(Mad, PUSH))
