"""A replay has the recorded bits, and a wrong bit is found where it is."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from palmar.rollouts.model import compile_scene
from palmar.rollouts.read import read
from palmar.rollouts.record import RolloutWriter
from palmar.rollouts.replay import MujocoResimulator, integration_state, replay, replay_mujoco
from palmar.rollouts.rollout import Servos
from palmar.safety.types import RolloutRefused


def test_a_replay_is_bit_equal_to_the_recording(recorded):
    found = replay_mujoco(read(recorded[0]))
    assert found.bit_equal and found.first is None and found.largest == 0.0
    assert found.steps == 300 and found.compared == 61 and not found.model_differs
    assert found.engine_recorded == found.engine_used


def _nudged(step):
    return lambda s, ctrl: np.nextafter(ctrl, np.inf) if s == step else ctrl


@pytest.mark.parametrize("step", [0, 37, 250])
def test_one_ulp_in_one_control_is_found_at_its_step(small, tmp_path, step):
    """Recorded at every step: the divergence is the first state whose bits a plain re-simulation changes."""
    path = tmp_path / "a.mcap"
    small.simulate(path, every=1, alter=_nudged(step))
    run = read(path)
    found = replay_mujoco(run)
    engine = MujocoResimulator(run)
    engine.restore(run.header.state0)
    expected = None
    for s, ctrl in enumerate(run.physics.ctrl):
        engine.step(ctrl)
        qpos, qvel = engine.state()
        if not (np.array_equal(qpos, run.states.qpos[s + 1]) and np.array_equal(qvel, run.states.qvel[s + 1])):
            expected = s + 1
            break
    assert found.first is not None and found.first.step == expected
    assert step < found.first.step <= step + 5
    assert 0 < found.first.size < 1e-12 and found.largest >= found.first.size
    assert found.first.quantity.startswith(("qpos[", "qvel[")) and " of " in found.first.quantity
    assert abs(found.first.t - (12.5 + found.first.step * 0.002)) < 1e-9


def test_between_recorded_states_the_later_one_names_the_divergence(small, tmp_path):
    path = tmp_path / "a.mcap"
    small.simulate(path, every=10, alter=lambda s, ctrl: ctrl + 0.1 if s == 42 else ctrl)
    first = replay_mujoco(read(path)).first
    assert first is not None and first.step == 50 and first.size > 1e-6


def test_a_changed_model_is_named(recorded, small):
    run = read(recorded[0])
    heavier = replace(run.header, model_xml=small.XML.replace('mass=".1"', 'mass=".2"'))
    found = replay_mujoco(replace(run, header=heavier))
    assert found.model_differs and not found.bit_equal
    assert "box" in found.first.quantity


def test_what_cannot_be_replayed_is_refused(recorded):
    run = read(recorded[0])
    with pytest.raises(RolloutRefused, match="no state at the start"):
        replay_mujoco(replace(run, header=replace(run.header, state0=None)))
    with pytest.raises(RolloutRefused, match="no model.xml"):
        replay_mujoco(replace(run, header=replace(run.header, model_xml=None)))
    gap = replace(run.physics, step=np.delete(run.physics.step, 7), ctrl=np.delete(run.physics.ctrl, 7, 0))
    with pytest.raises(RolloutRefused, match=r"299 of them, wrong at \[8\]"):
        replay_mujoco(replace(run, physics=gap))
    with pytest.raises(RolloutRefused, match="state0 has shape"):
        replay_mujoco(replace(run, header=replace(run.header, state0=np.zeros(3))))


def test_another_engine_can_be_passed_in(recorded):
    class Halved(MujocoResimulator):
        """The same physics at half the time step, twice as often."""

        def __init__(self, rollout):
            super().__init__(rollout)
            self.model.opt.timestep /= 2

        def step(self, ctrl):
            super().step(ctrl)
            super().step(ctrl)

    found = replay(read(recorded[0]), Halved)
    assert not found.bit_equal and found.first.step == 5 and 0 < found.largest < 1.0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<worldbody>", '<include file="/etc/hostname"/><worldbody>', "reaches outside"),
        ("<worldbody>", '<asset><mesh name="m" file="m.obj"/></asset><worldbody>', "m.obj"),
        ("<worldbody>", '<extension><plugin plugin="x"/></extension><worldbody>', "reaches outside"),
        ("<mujoco model", '<!DOCTYPE a [<!ENTITY b "c">]><mujoco model', "document type or entities"),
        ("<worldbody>", "<worldbody", "not XML"),
        ("<worldbody>", "<worldbody><nothing/>", "does not compile"),
    ],
)
def test_a_scene_that_reaches_for_other_files_is_refused(recorded, small, old, new, said):
    run = read(recorded[0])
    assert old in small.XML
    evil = replace(run.header, model_xml=small.XML.replace(old, new, 1).strip())
    with pytest.raises(RolloutRefused, match=said):
        replay_mujoco(replace(run, header=evil))


def test_a_scene_may_name_files_that_are_in_the_rollout(small, tmp_path):
    """A tetrahedron of its own goes into the file, and comes out of it into the model."""
    mesh = b"v 0 0 0\nv .1 0 0\nv 0 .1 0\nv 0 0 .1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    xml = small.XML.replace(
        "<worldbody>",
        '<asset><mesh name="m" file="m.obj"/></asset><worldbody><geom type="mesh" mesh="m" contype="0"/>',
    )
    head = small.header(model_xml=xml, assets={"m.obj": mesh})
    with RolloutWriter(tmp_path / "a.mcap", head):
        pass
    assert compile_scene(read(tmp_path / "a.mcap")).nmesh == 1


def test_recorded_stiffness_and_damping_are_replayed(small, tmp_path):
    """The same controls under softer servos: bit-equal with the recorded gains, and only with them."""
    path, model = tmp_path / "soft.mcap", mujoco.MjModel.from_xml_string(small.XML)
    data = mujoco.MjData(model)
    head = small.header(state0=integration_state(model, data))
    own = model.actuator_gainprm[:, 0].copy(), -model.actuator_biasprm[:, 2]
    with RolloutWriter(path, head) as out:
        out.state(0, data.qpos, data.qvel)
        for s in range(200):
            if s in (40, 90, 150):
                gains = own if s == 150 else (own[0] * s / 100, own[1] * s / 200)
                out.servo(s, *gains)
                model.actuator_gainprm[:, 0], model.actuator_biasprm[:, 1:3] = gains[0], -np.stack(gains, axis=-1)
            data.ctrl[:] = 0.5 * np.sin(s / 30)
            out.physics(s, data.ctrl)
            mujoco.mj_step(model, data)
            out.state(s + 1, data.qpos, data.qvel)
    run = read(path)
    assert run.servos.step.tolist() == [40, 90, 150]
    assert replay_mujoco(run).bit_equal
    bare = replace(run, servos=Servos(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3))))
    first = replay_mujoco(bare).first
    assert first is not None and first.step == 41
