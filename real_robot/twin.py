"""Simulated hardware in real time: an arm-hand robot, its table, its object tracker and its own watchdog.

One physics step per millisecond of the monotonic clock.  Everything needed to repeat the physics bit by bit
goes into a ring: the full start state once, the actuator command of every step by its index.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np

from palmar.real_robot import process, realtime, shared
from palmar.real_robot.config import RunConfig, TwinConfig
from palmar.real_robot.layout import twin_layout
from palmar.real_robot.process import Stopping
from palmar.safety.types import CONTACT_PAIRS, ConfigError
from palmar.sim.tracker import Tracker, TrackerConfig

FAULT = "communication_constraints_violation"
"""FR3's own name for too many lost packets."""
BURST = 4
"""Steps made up for after a late wake-up; beyond, simulated time slips behind the clock."""
CONTACT_EVERY = 10
"""Contact forces are recorded at every so many steps."""
DT = 0.001


def open_memory(path: Path, run: RunConfig, model: mujoco.MjModel) -> shared.SharedMap:
    """The twin's shared file, made for ``run`` and the world ``model``.

    Raises:
        ConfigError: If the world's step is not ``DT`` or it has actuators besides the robot's.
    """
    robot = run.robot_model()
    if model.opt.timestep != DT or model.nu != robot.n:
        raise ConfigError(
            f"the twin needs steps of {DT} s and {robot.n} actuators, got {model.opt.timestep}, {model.nu}"
        )
    nstate = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION)
    sizes = (model.nq, model.nv, nstate)
    description = shared.Description(
        kind="twin", robot=robot.hash(), joints=robot.joints, objects=run.objects, sizes=sizes
    )
    return shared.create(path, description, twin_layout(description))


class Twin:
    """The robot's world, one step at a time."""

    def __init__(self, run: RunConfig, model: mujoco.MjModel, memory: shared.SharedMap, *, rng: np.random.Generator):
        self.config: TwinConfig = run.twin
        self.model, self.data = model, mujoco.MjData(model)
        self.blocks, self._ring = memory.blocks, memory.rings["physics"]
        self._rng, self._addresses = rng, _Addresses(model, memory.description)
        self.step_index, self.slipped, self.fault = 0, 0, ""
        self._command_seq, self._missed, self._recovered, self._active = 0, 0, 0, False
        self._late: deque = deque(maxlen=self.config.latency + 1)
        self.servo = self._addresses.gains(model)
        """Stiffness and damping of the position servos, (2, n): the largest that a command may ask for."""
        self.gains, self._impedance = self.servo, 0
        self._start(run.qpos)
        c = self.config
        tracker = TrackerConfig(
            rate=c.tracker_rate, noise=c.tracker_noise, delay=c.tracker_delay, dropout=c.tracker_dropout
        )
        self._tracker = Tracker(tracker, batch=1, objects=len(run.objects), rng=rng)
        position, quaternion = self._objects()
        self._tracker.reset(np.array([0]), np.zeros(1), position[None], quaternion[None])
        self._delivered = np.zeros((1, len(run.objects), 3))
        self._frames, self._origin = np.zeros(len(run.objects), np.int64), position.copy()

    def _start(self, qpos: Sequence[float]) -> None:
        """Put the world into its start state, at rest, with the servos holding it; record that state."""
        m, d = self.model, self.data
        if qpos:
            if len(qpos) != m.nq:
                raise ConfigError(f"start state has {len(qpos)} numbers, the world needs {m.nq}")
            d.qpos[:] = qpos
        self.ctrl = d.qpos[self._addresses.q].copy()
        d.ctrl[self._addresses.u] = self.ctrl
        block, spec = self.blocks["start"], mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.zeros(mujoco.mj_stateSize(m, spec))
        mujoco.mj_getState(m, d, state, spec)
        block.record["state"] = state
        block.write()

    def step(self, now: float) -> None:
        """Take the newest command, advance 1 ms, measure, track, record."""
        self._receive()
        self.data.ctrl[self._addresses.u] = self.ctrl
        before = self.data.qpos[self._addresses.q].copy(), self.data.qvel[self._addresses.v].copy()
        mujoco.mj_step(self.model, self.data)
        # mj_step leaves forces that belong to the state before its integration
        tau = self.data.qfrc_actuator[self._addresses.v].copy()
        self._late.append((now, *before, tau))
        self.step_index += 1
        self._publish_state()
        tracked = self._track(now)
        self._publish_truth(now)
        self._record(now, tracked)

    def _receive(self) -> None:
        """Heed the wire as FR3 does: after ``watchdog`` ticks without a new command, hold and say why."""
        try:
            c = self.blocks["command"].read()
        except shared.TornRead:
            c = None
        if c is not None and int(c["recover"]) != self._recovered:
            self._recovered, self.fault, self._missed = int(c["recover"]), "", 0
        if c is None or int(c["seq"]) == self._command_seq:
            self._missed += 1
            if self._active and not self.fault and self._missed >= self.config.watchdog:
                self.fault, self._active = FAULT, False
                self.ctrl = self.data.qpos[self._addresses.q].copy()
            return
        self._command_seq, self._missed = int(c["seq"]), 0
        self._active = bool(c["active"]) and not self.fault
        gains = np.stack([c["stiffness"], c["damping"]]) if c["impedance"] else self.servo
        if self._active and np.isfinite(c["q"]).all() and np.all((gains >= 0.0) & (gains <= self.servo)):
            low, high = self._addresses.range
            self.ctrl = np.clip(c["q"], low, high)
            self._stiffen(gains, int(c["impedance"] != 0))

    def _stiffen(self, gains: np.ndarray, impedance: int) -> None:
        """Give the servos stiffness and damping, (2, n), from this step on."""
        self._impedance = impedance
        if not np.array_equal(gains, self.gains):
            self.gains = gains
            self._addresses.set_gains(self.model, gains)

    def _publish_state(self) -> None:
        t, q, qd, tau = self._late[0]
        c, r, n = self.config, self.blocks["state"].record, len(q)
        q = q + c.q_noise * self._rng.standard_normal(n)
        r["seq"], r["t"], r["q"] = self.step_index, t, np.round(q / c.q_step) * c.q_step
        r["qd"], r["tau"] = qd + c.qd_noise * self._rng.standard_normal(n), tau
        r["fault"], r["missed"], r["recovered"] = self.fault, self._missed, self._recovered
        r["command_seq"], r["slipped"] = self._command_seq, self.slipped
        self.blocks["state"].write()

    def _objects(self) -> tuple[np.ndarray, np.ndarray]:
        at = self._addresses.objects
        return self.data.qpos[at[:, None] + np.arange(3)], self.data.qpos[at[:, None] + np.arange(3, 7)]

    def _track(self, now: float) -> np.ndarray:
        """Let the tracker see; which objects got a new pose, (m,) bool."""
        position, quaternion = self._objects()
        t = self._tracker
        t.update(np.array([self.step_index * DT]), position[None], quaternion[None])
        new = (t.position != self._delivered).any(axis=-1)[0]
        if new.any():
            self._delivered = t.position.copy()
            self._frames += new
            r = self.blocks["objects"].record
            r["seq"], r["t"] = self._frames, np.where(new, now - t.config.delay, r["t"])
            r["position"], r["quaternion"] = t.position[0], t.quaternion[0]
            self.blocks["objects"].write()
        return new

    def _publish_truth(self, now: float) -> None:
        r = self.blocks["truth"].record
        r["step"], r["t"], r["position"], r["start"] = self.step_index, now, self._objects()[0], self._origin
        r["speed"] = np.abs(self.data.qvel[self._addresses.v]).max()
        self.blocks["truth"].write()

    def _record(self, now: float, tracked: np.ndarray) -> None:
        r, step = self._ring.record, self.step_index - 1
        r["step"], r["t"], r["command_seq"], r["ctrl"] = step, now, self._command_seq, self.data.ctrl
        r["impedance"], r["stiffness"], r["damping"] = self._impedance, *self.gains
        r["has_state"] = step % self.config.state_every == 0
        if r["has_state"]:
            r["qpos"], r["qvel"] = self.data.qpos, self.data.qvel
        r["has_contact"] = step % CONTACT_EVERY == 0
        if r["has_contact"]:
            r["contact"] = self._addresses.contact_forces(self.data)
        r["tracked"] = tracked
        r["position"], r["quaternion"] = self._tracker.position[0], self._tracker.quaternion[0]
        self._ring.push()


class _Addresses:
    """Where names live in the model's arrays."""

    def __init__(self, model: mujoco.MjModel, d: shared.Description):
        try:
            joints = [model.joint(j) for j in d.joints]
            actuators = [model.actuator(j).id for j in d.joints]
            objects = [model.jnt_qposadr[model.body(o).jntadr[0]] for o in d.objects]
        except KeyError as error:
            raise ConfigError(f"the twin's world lacks a joint, actuator or object: {error}") from error
        self.q = np.array([j.qposadr[0] for j in joints])
        self.v = np.array([j.dofadr[0] for j in joints])
        self.u = np.array(actuators)
        self.objects = np.array(objects, dtype=int)
        self.range = model.actuator_ctrlrange[self.u].T.copy()
        if not model.actuator_ctrllimited[self.u].all():
            unlimited = ~model.actuator_ctrllimited[self.u].astype(bool)
            self.range[0, unlimited], self.range[1, unlimited] = -np.inf, np.inf
        known = {model.sensor(i).name for i in range(model.nsensor)}
        self._sensors = [f"force_{pair}" if f"force_{pair}" in known else None for pair in CONTACT_PAIRS]

    def gains(self, model: mujoco.MjModel) -> np.ndarray:
        """Stiffness [N m/rad] and damping [N m s/rad] of the joints' servos, (2, n)."""
        return np.stack([model.actuator_gainprm[self.u, 0], -model.actuator_biasprm[self.u, 2]])

    def set_gains(self, model: mujoco.MjModel, gains: np.ndarray) -> None:
        """The same, into the model."""
        model.actuator_gainprm[self.u, 0] = gains[0]
        model.actuator_biasprm[self.u, 1:3] = -gains.T

    def contact_forces(self, data: mujoco.MjData) -> list[float]:
        """Force of each named pair [N], 0 where the world has no sensor for it."""
        return [float(np.linalg.norm(data.sensor(s).data)) if s else 0.0 for s in self._sensors]


def run_twin(run: RunConfig, stopping: Stopping, log: logging.Logger) -> None:
    """Simulate until told to stop."""
    model = mujoco.MjModel.from_xml_string(run.scene)
    memory = open_memory(Path(run.twin_memory), run, model)
    try:
        twin = Twin(run, model, memory, rng=np.random.default_rng(run.seed))
        log.info("twin of %s: %s", run.robot["name"], realtime.go_realtime(run.priority + 10))
        realtime.freeze_collector()
        beat, fault = realtime.Beat(DT), ""
        beat.start()
        while not stopping:
            _, skipped = beat.wait()
            burst = min(skipped, BURST)
            twin.slipped += skipped - burst
            for _ in range(1 + burst):
                twin.step(time.monotonic())
            if twin.fault != fault:
                fault = twin.fault
                log.warning("fault: %s", fault or "cleared")
        log.info("stopped after %d steps, %d ms slipped", twin.step_index, twin.slipped)
    finally:
        memory.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the twin of ``--config FILE``."""
    return process.main("twin", run_twin, argv)


if __name__ == "__main__":
    raise SystemExit(main())
