"""The recorder: drains the rings of control process and twin into one rollout file; no ROS.

Slow or full disks cost records, which the rings count, never a control period.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from palmar.real_robot import process, realtime, records, shared
from palmar.real_robot.config import RunConfig
from palmar.real_robot.layout import LAYOUTS
from palmar.real_robot.process import Stopping
from palmar.rollouts.header import RolloutHeader
from palmar.rollouts.model import fingerprint
from palmar.rollouts.provenance import git_state
from palmar.rollouts.record import RolloutWriter

EVERY = 0.02
"""Time between two looks at the rings [s]."""
FIRST_STATE = 30.0
"""How long to wait for the twin's first step [s]."""


class Recorder:
    """From records in shared memory to messages in a file."""

    def __init__(self, run: RunConfig, twin: shared.SharedMap | None, path: Path, log: logging.Logger):
        """Record ``run`` to ``path``; without a twin what the robot itself knows, and the clock starts now."""
        self.run, self.twin, self.log = run, twin, log
        self.names = run.constraint_set(run.robot_model()).names
        self.control: shared.SharedMap | None = None
        self._chunk_version = 0
        self._servo: bytes | None = None
        self._seen = np.zeros(len(run.objects), np.int64)
        if twin is None:
            self.writer = RolloutWriter(path, self._header(time.monotonic(), engine="hardware"))
            return
        first = self._first(twin)
        self.writer = RolloutWriter(path, self._header(float(first["t"][0]), engine="mujoco", **self._physics(twin)))
        self._put_physics(first)

    def _first(self, twin: shared.SharedMap) -> np.ndarray:
        end = time.monotonic() + FIRST_STATE
        while not len(twin.rings["physics"]):
            if time.monotonic() > end:
                raise shared.SharedMemoryError(f"the twin made no step within {FIRST_STATE} s")
            time.sleep(EVERY)
        return twin.rings["physics"].drain()

    def _physics(self, twin: shared.SharedMap) -> dict[str, Any]:
        """Fields of the header from which the physics can be repeated."""
        start, model = twin.blocks["start"].read(), mujoco.MjModel.from_xml_string(self.run.scene)
        assert start is not None
        return {
            "physics_dt": model.opt.timestep,
            "model_xml": self.run.scene,
            "model_hash": fingerprint(model),
            "state0": np.array(start["state"]),
        }

    def _header(self, t0: float, **more: Any) -> RolloutHeader:
        run, now = self.run, time.monotonic()
        return RolloutHeader(
            task=run.task,
            instruction=run.instruction,
            robot=run.robot_model(),
            constraints=run.constraints,
            control_dt=run.period,
            t0=t0,
            wall_start_ns=time.time_ns() - round((now - t0) * 1e9),
            objects=run.objects,
            versions={name: _version(name) for name in ("mujoco", "numpy", "palmar", "ros-rclpy")},
            seed=run.seed,
            noise_seeds={"twin": run.seed},
            config={k: v for k, v in asdict(run).items() if k not in ("robot", "scene", "constraints")},
            git=git_state(),
            **more,
        )

    def drain(self) -> int:
        """Write everything there is; how many records."""
        count = self._put_physics(self.twin.rings["physics"].drain()) if self.twin is not None else 0
        if self.control is None and Path(self.run.control_memory).exists():
            robot = self.run.robot_model().hash()
            self.control = shared.attach(Path(self.run.control_memory), LAYOUTS, kind="control", robot=robot)
        if self.control is None:
            return count
        self._put_chunk(self.control.blocks["chunk"])
        if self.twin is None:
            self._put_objects(self.control.blocks["objects"])
        return count + self._put_ticks(self.control.rings["ticks"].drain())

    def _put_physics(self, records: np.ndarray) -> int:
        w = self.writer
        for r in records:
            step, t = int(r["step"]), float(r["t"])
            self._put_servo(step, r)
            w.physics(step, r["ctrl"])
            if r["has_state"]:
                w.state(step + 1, r["qpos"], r["qvel"])
            if r["has_contact"]:
                w.contact(t, r["contact"])
            for k in np.flatnonzero(r["tracked"]):
                w.object_pose(t, self.run.objects[k], r["position"][k], r["quaternion"][k])
        return len(records)

    def _put_servo(self, step: int, r: Any) -> None:
        """The servos' gains where they change; nothing before a command first carries some."""
        gains = r["stiffness"].tobytes() + r["damping"].tobytes()
        if gains != self._servo and (r["impedance"] or self._servo is not None):
            self.writer.servo(step, r["stiffness"], r["damping"])
            self._servo = gains

    def _put_ticks(self, ticks: np.ndarray) -> int:
        w = self.writer
        for r in ticks:
            t = float(r["t"])
            w.joint_state(t, r["q"], r["qd"], r["tau"])
            w.intended(t, r["intended"])
            w.command(t, r["u"], r["ud"], r["udd"], r["uddd"])
            if r["impedance"]:
                w.impedance(t, r["stiffness"], r["damping"])
            w.verdict(t, records.verdict(r, self.names))
        return len(ticks)

    def _put_chunk(self, block: shared.Block) -> None:
        """The newest chunk; a policy faster than ``EVERY`` is thinned out."""
        if block.version == self._chunk_version:
            return
        try:
            c = block.read()
        except shared.TornRead:
            return
        if c is None:  # never written
            return
        self._chunk_version = block.version
        if c["count"]:
            self.writer.chunk(records.chunk(c))

    def _put_objects(self, block: shared.Block) -> None:
        """Poses that were heard since the last look; a tracker faster than ``EVERY`` is thinned out."""
        try:
            o = block.read()
        except shared.TornRead:
            return
        if o is None:
            return
        for k in np.flatnonzero(o["seq"] != self._seen):
            self.writer.object_pose(float(o["t"][k]), self.run.objects[k], o["position"][k], o["quaternion"][k])
        self._seen = o["seq"].copy()

    def finish(self) -> None:
        """Drain what is left, say how the run ended, close the file."""
        while self.drain():
            pass
        dropped = {"physics": self.twin.rings["physics"].dropped} if self.twin is not None else {}
        if self.control is not None:
            dropped["ticks"] = self.control.rings["ticks"].dropped
        path = Path(self.run.run_dir) / "result.json"
        result = json.loads(path.read_text()) if path.exists() else {}
        self.writer.finish(success=result.pop("success", None), detail={**result, "dropped": dropped})
        self.writer.close()
        self.log.info("closed %s, dropped %s", self.writer.path, dropped)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def run_recorder(run: RunConfig, stopping: Stopping, log: logging.Logger) -> None:
    """Record until told to stop."""
    realtime.prefer(10)
    robot = run.robot_model().hash()
    twin = None
    if run.hardware != "real":
        twin = shared.wait_attach(Path(run.twin_memory), LAYOUTS, kind="twin", robot=robot, timeout=FIRST_STATE)
    recorder = Recorder(run, twin, Path(run.run_dir) / "rollout.mcap", log)
    log.info("recording to %s", recorder.writer.path)
    while not stopping:
        time.sleep(EVERY)
        recorder.drain()
    recorder.finish()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recorder of ``--config FILE``."""
    return process.main("recorder", run_recorder, argv)


if __name__ == "__main__":
    raise SystemExit(main())
