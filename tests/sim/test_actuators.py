"""Laws of actuators: commands arrive when they should and in order; torque never passes its limits."""

from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palmar.safety.types import CommandRefused, ConfigError
from palmar.sim import actuators, scene
from palmar.sim.actuators import MOTORS, ActuatorConfig, Motor


def stream(lag, depth, blocks, jitter=None, seed=0):
    """Commands of consecutive blocks and what the servos followed, one row per physics step."""
    rng = np.random.default_rng(seed)
    q = rng.normal(size=lag.shape)
    line, sent, applied, late = actuators.start(lag, q, depth=depth), [], [], []
    for steps in blocks:
        u = rng.normal(size=(steps, *lag.shape))
        extra = None if jitter is None else rng.integers(0, jitter + 1, u.shape)
        out, line = actuators.send(line, u, extra)
        sent.append(u), applied.append(out), late.append(np.zeros_like(u, int) if extra is None else extra)
    return q, np.concatenate(sent), np.concatenate(applied), np.concatenate(late)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=3, max_size=3),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_a_command_arrives_exactly_its_delay_later(lags, blocks):
    """Whatever the delay and however the steps are cut into intervals."""
    lag = np.array([lags])
    q, sent, applied, _ = stream(lag, 6, blocks)
    for j, d in enumerate(lags):
        expected = np.concatenate([np.full(d, q[0, j]), sent[:, 0, j]])[: len(sent)]
        np.testing.assert_array_equal(applied[:, 0, j], expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), st.integers(1, 4), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 99))
def test_with_jitter_a_servo_follows_the_newest_command_that_has_arrived(delay, jitter, blocks, seed):
    """Against a mailbox written out step by step; in particular never back in time, never later than the bound."""
    lag = np.full((2, 2), delay)
    q, sent, applied, late = stream(lag, delay + jitter, blocks, jitter, seed)
    for b, j in np.ndindex(2, 2):
        newest = -1
        for s in range(len(sent)):
            arrived = [i for i in range(s + 1) if i + delay + late[i, b, j] <= s]
            assert max(arrived, default=-1) >= newest
            newest = max(arrived, default=-1)
            assert newest >= s - delay - jitter or newest == -1
            assert applied[s, b, j] == (sent[newest, b, j] if newest >= 0 else q[b, j])


def test_robots_start_afresh_one_by_one():
    line = actuators.start(np.full((3, 1), 2), np.zeros((3, 1)), depth=2)
    _, line = actuators.send(line, np.ones((4, 3, 1)))
    line = actuators.restart(line, np.array([1]), np.full((1, 1), 1), np.full((1, 1), 7.0))
    out, _ = actuators.send(line, np.full((3, 3, 1), 5.0))
    np.testing.assert_array_equal(out[:, 0, 0], [1, 1, 5])
    np.testing.assert_array_equal(out[:, 1, 0], [7, 5, 5])


def test_without_delay_commands_pass_untouched():
    u = np.random.default_rng(0).normal(size=(3, 2, 4))
    out, _ = actuators.send(actuators.start(np.zeros((2, 4), int), u[0], depth=0), u)
    assert out is u


def test_delays_are_drawn_per_bus_and_within_the_depth(robot):
    config = ActuatorConfig(arm_delay=(0.0, 0.004), hand_delay=(0.01, 0.02), jitter=0.005)
    rng = np.random.default_rng(0)
    delay = actuators.draw_delay(config, robot, rng, 200, dt=0.001)
    jitter = actuators.draw_jitter(config, robot, rng, (5, 200), dt=0.001)
    arm, hand = delay[:, : robot.n_arm], delay[:, robot.n_arm :]
    assert (arm == arm[:, :1]).all() and (hand == hand[:, :1]).all()
    assert set(arm[:, 0]) == {0, 1, 2, 3, 4} and hand.min() == 10 and hand.max() == 20
    assert set(jitter.ravel()) == {0, 1, 2, 3, 4, 5}
    assert (delay + jitter).max() <= actuators.depth(config, dt=0.001) == 25


def test_commands_later_than_the_line_remembers_are_refused():
    with pytest.raises(CommandRefused, match=r"\[0, 2\]"):
        actuators.start(np.full((1, 1), 3), np.zeros((1, 1)), depth=2)
    line = actuators.start(np.full((1, 1), 2), np.zeros((1, 1)), depth=2)
    with pytest.raises(CommandRefused, match="3 steps late"):
        actuators.send(line, np.zeros((1, 1, 1)), np.ones((1, 1, 1), int))
    with pytest.raises(ConfigError, match="jitter"):
        ActuatorConfig(jitter=-0.1)


PENDULUM = """
<mujoco><option timestep="0.001" integrator="implicitfast" gravity="0 0 0"/><worldbody><body>
  <joint name="j" axis="0 0 1" damping="0.03" armature="0.001"/><geom type="capsule" size="0.01 0.05" pos="0.05 0 0"
  mass="0.03"/></body></worldbody><actuator><position name="j" joint="j" kp="3" kv="0.1" forcerange="-1 1"/></actuator>
</mujoco>"""


def drive(model, motor, robot, targets, monkeypatch):
    """Speeds, torques of the motor and positions of a servo that follows ``targets``, on motor or model limits."""
    config = ActuatorConfig()
    if motor is not None:
        monkeypatch.setitem(actuators.MOTORS, "mine", motor)
        config = ActuatorConfig(hand_motor="mine")
    fields = actuators.torque_limits(model, np.random.default_rng(0), 1, robot=robot, config=config)
    slope = float(fields["dof_damping"][0, 0] - model.dof_damping[0])
    own = mujoco.MjModel.from_xml_string(PENDULUM)
    for name, value in fields.items():
        getattr(own, name)[:] = value[0]
    data, rows = mujoco.MjData(own), []
    for u in targets:
        data.ctrl[0] = u
        w = float(data.qvel[0])
        mujoco.mj_step(own, data)
        rows.append((w, float(data.actuator_force[0]) - slope * w, float(data.qpos[0])))
    return np.array(rows).T, fields


@pytest.mark.parametrize("motor", [*MOTORS.values(), Motor(0.93, 1.8, 8.48, 3.0), Motor(0.3, 1.0, 4.0, 0.9)])
def test_torque_never_passes_what_the_motor_can_give(motor, monkeypatch):
    """Violent targets: always inside current cap and torque-speed line, up to the joint's speed limit."""
    model = mujoco.MjModel.from_xml_string(PENDULUM)
    robot = SimpleNamespace(joints=("j",), n=1, n_arm=0, limits=SimpleNamespace(v_max=np.array([6.3])))
    targets = np.repeat(np.random.default_rng(1).uniform(-4, 4, 60), 50)
    (w, torque, _), fields = drive(model, motor, robot, targets, monkeypatch)
    v = min(6.3, motor.no_load)
    top, slope = motor.torque, fields["dof_damping"][0, 0] - model.dof_damping[0]
    driving = torque * w > 0
    line = motor.stall * (1 - np.abs(w) / motor.no_load)
    inside = driving & (np.abs(w) <= v)
    assert inside.sum() > 200 and (np.abs(torque) > 0.8 * np.minimum(top, line))[inside].any()  # it is driven hard
    assert np.all(np.abs(torque)[inside] <= np.minimum(top, line)[inside] + 1e-9)
    assert np.all(np.abs(torque)[~driving] <= top + slope * np.abs(w)[~driving] + 1e-9)  # braking, as documented


def test_a_motor_that_is_not_at_its_limit_moves_as_before(monkeypatch):
    model = mujoco.MjModel.from_xml_string(PENDULUM)
    robot = SimpleNamespace(joints=("j",), n=1, n_arm=0, limits=SimpleNamespace(v_max=np.array([6.3])))
    targets = 0.02 * np.sin(np.arange(2000) * 0.005)
    (_, _, free), _ = drive(model, None, robot, targets, monkeypatch)
    motor = Motor(0.93, 1.8, 8.48, 3.0)
    (_, torque, limited), fields = drive(model, motor, robot, targets, monkeypatch)
    assert np.abs(torque).max() < 0.9 * motor.torque and np.abs(free).max() > 0.01
    assert fields["dof_damping"][0, 0] > model.dof_damping[0] + 0.1
    np.testing.assert_allclose(limited, free, atol=1e-7)


def test_no_load_speed_is_where_a_voltage_limited_motor_ends(monkeypatch):
    """Chased by its target, the shaft settles where line and friction meet."""
    model = mujoco.MjModel.from_xml_string(PENDULUM)
    motor = Motor(0.93, 1.8, 8.48, 3.0)
    robot = SimpleNamespace(joints=("j",), n=1, n_arm=0, limits=SimpleNamespace(v_max=np.array([6.3])))
    (w, _, _), _ = drive(model, motor, robot, np.linspace(0, 300, 3000), monkeypatch)
    assert w[-1] == pytest.approx(0.93 / (0.93 / 8.48 + 0.03), rel=1e-3)


def test_limits_of_the_robot_are_the_motors_and_the_arms_own(robot):
    model = scene.compose()[0]
    config = ActuatorConfig(hand_motor="xc330_m288", strength=(0.5, 1.0))
    fields = actuators.torque_limits(model, np.random.default_rng(0), 50, robot=robot, config=config)
    act = [model.actuator(j).id for j in robot.joints]
    high, own = fields["actuator_forcerange"][:, act, 1], model.actuator_forcerange[act, 1].copy()
    np.testing.assert_array_equal(fields["actuator_forcerange"][..., 0], -fields["actuator_forcerange"][..., 1])
    own[robot.n_arm :] = MOTORS["xc330_m288"].torque
    assert np.all(high <= own * (1 + 1e-12)) and np.all(high >= 0.5 * own * (1 - 1e-12))
    assert MOTORS["xc330_m288"].torque == pytest.approx(0.284, abs=1e-3)  # 0.517 N m/A at 0.55 A
    model.actuator_forcelimited[act[0]] = 0
    with pytest.raises(ConfigError, match="fr3_joint1"):
        actuators.torque_limits(model, np.random.default_rng(0), 1, robot=robot, config=config)
