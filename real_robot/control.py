"""The control process: filter and driver at 1 kHz, alone in its interpreter; no ROS, no torch.

It owns the shared file that joins it to the bridge.  Whoever else dies or hangs, it brings the robot to a
hold; if it dies itself, the hardware's own watchdog does.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from palmar.real_robot import process, realtime, shared
from palmar.real_robot.config import RunConfig
from palmar.real_robot.control_loop import START_TIMEOUT, Control
from palmar.real_robot.drivers.assembled import Assembled
from palmar.real_robot.drivers.twin import twin_robot
from palmar.real_robot.drivers.wire import WireRobot
from palmar.real_robot.inbox import Inbox
from palmar.real_robot.layout import LAYOUTS, control_layout
from palmar.real_robot.process import Stopping
from palmar.real_robot.tally import Tally
from palmar.safety.constraints import ConstraintSet
from palmar.safety.filter import Filter, FilterConfig
from palmar.safety.hulls import shipped_detail
from palmar.safety.robot import RobotModel
from palmar.sim.interface import Robot


def run_control(run: RunConfig, stopping: Stopping, log: logging.Logger) -> None:
    """Control until told to stop; what happened is written to ``control.json``.

    Raises:
        PalmarError: If the hardware does not appear, or does not rest where the filter accepts it.
    """
    robot = run.robot_model()
    constraints = run.constraint_set(robot)
    config = FilterConfig(dt=run.period, detail=shipped_detail(robot))
    with ExitStack() as stack:
        driver = stack.enter_context(closing(open_robot(run, robot)))
        filter_ = Filter(robot, constraints, config, mode=run.mode)
        memory = stack.enter_context(closing(open_memory(run, robot, constraints)))
        seen = memory
        if run.hardware != "real":
            twin = Path(run.twin_memory)
            seen = stack.enter_context(closing(shared.attach(twin, LAYOUTS, kind="twin", robot=robot.hash())))
        inbox = Inbox(memory.blocks, seen.blocks["objects"] if run.objects else None)
        tally = Tally(memory, filter_, run.period)
        control = Control(run, driver, filter_, inbox, tally, log)
        if not control.start(lambda: stopping.requested):
            return log.info("stopped before the first tick")
        where = realtime.keep(run.control_cores, inside=True)
        log.info("control of %s: %s, %s", robot.name, realtime.go_realtime(run.priority), where)
        realtime.freeze_collector()
        beat = realtime.Beat(run.period)
        beat.start()
        while not stopping:
            now, skipped = beat.wait()
            control.tick(now, skipped, beat.late)
        control.finish(beat)
        summary = tally.summary()
        (Path(run.run_dir) / "control.json").write_text(json.dumps(summary, indent=1))
        log.info("stopped: %s", {k: v for k, v in summary.items() if k not in ("worst_margin", "misses")})


def open_memory(run: RunConfig, robot: RobotModel, constraints: ConstraintSet) -> shared.SharedMap:
    """The control process's shared file."""
    description = shared.Description(
        kind="control",
        robot=robot.hash(),
        joints=robot.joints,
        objects=run.objects,
        constraints=constraints.names,
    )
    return shared.create(Path(run.control_memory), description, control_layout(description))


def open_robot(run: RunConfig, robot: RobotModel) -> Robot:
    """The robot of ``run``: the twin, or its devices as one.

    Raises:
        PalmarError: If a wire does not appear in time, or is another robot's.
    """
    if run.hardware == "twin":
        return twin_robot(robot, Path(run.twin_memory), timeout=START_TIMEOUT)
    parts = [
        WireRobot(d.joints, Path(d.memory), robot=robot.hash(), fresh=d.fresh, timeout=START_TIMEOUT)
        for d in run.devices
    ]
    return Assembled(parts, robot.joints)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the control process of ``--config FILE``."""
    return process.main("control", run_control, argv)


if __name__ == "__main__":
    raise SystemExit(main())
