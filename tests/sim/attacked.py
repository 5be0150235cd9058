"""An arm, a cube and a budget: what adversaries are tried on."""

from types import SimpleNamespace

import mujoco
import numpy as np

from palmar.sim.adversary import Budget, Moment, Surface

XML = """
<mujoco><option timestep="0.005"/><worldbody><geom name="floor" type="plane" size="1 1 .1"/>
  <body name="arm" pos="0 0 0.5"><joint name="j1" axis="0 1 0" damping="0.1"/><geom type="capsule" size="0.02 0.1"
   pos="0.1 0 0"/><body name="hand" pos="0.2 0 0"><joint name="j2" axis="0 1 0" damping="0.1"/>
   <geom type="capsule" size="0.02 0.05" pos="0.05 0 0"/></body></body>
  <body name="cube" pos="0.5 0 0.03"><freejoint/><geom type="box" size=".03 .03 .03"/></body></worldbody>
 <actuator><position name="j1" joint="j1" kp="20"/><position name="j2" joint="j2" kp="5"/></actuator></mujoco>"""
MODEL = mujoco.MjModel.from_xml_string(XML)
ROBOT = SimpleNamespace(n=2, joints=("j1", "j2"))
IO = SimpleNamespace(obs_names=("q", "qd", "cube"), obs_sizes=(2, 2, 3))
B, PERIOD, DOFS = 3, 0.05, np.array([0, 1])
FULL = Budget(5.0, 0.5, 1.0, impulse=0.6, angular_impulse=0.15, bodies=("cube", "hand"), observation={"cube": 0.01})


def surface(budget=FULL) -> Surface:
    return Surface.of(MODEL, ROBOT, IO, budget)


def moment(t, obs=None):
    obs = np.zeros((B, 7), np.float32) if obs is None else obs
    zeros = np.zeros((B, 2))
    return Moment(np.broadcast_to(np.asarray(t, float), B), obs, zeros, zeros, np.zeros((B, 1, 3)), np.zeros((B, 1, 4)))
