"""The replay node: a rollout onto topics, to look at; or onto the robot, slower, in place of a policy.

``--target robot`` publishes chunks on the command topic as the policy node does, so that the filter has the last word
and every rule of that topic holds; a rollout of another robot is refused.  ``--target topics`` commands nobody: it
publishes joint states and object poses as the bridge does, and refuses where somebody else publishes joint states.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState

from palmar.real_robot.config import RunConfig
from palmar.real_robot.nodes import outgoing, spinning, topics
from palmar.real_robot.nodes.chooser import Sight
from palmar.real_robot.nodes.executed import Executed
from palmar.real_robot.nodes.policy import PolicyNode
from palmar.real_robot.nodes.views import Wanted
from palmar.rollouts.playback import Motion, Playback, load, pose_at, slowed
from palmar.rollouts.read import read
from palmar.rollouts.rollout import Rollout
from palmar.safety.robot import RobotModel
from palmar.safety.types import Array, ConfigError, PalmarError

RATE = 100.0
"""Joint states per second of a replay onto topics [Hz]."""
GRAPH = 1.0
"""How long other publishers are looked for before the first message [s]."""
END = 0.5
"""A replay onto the robot ends this long after its last target [s]."""


class Recorded:
    """A rollout as a chooser: what the policy node asks for targets."""

    views: tuple[Wanted, ...] = ()

    def __init__(self, motion: Motion):
        self._playback = Playback(motion)
        self.rate = self._playback.rate

    @property
    def left(self) -> float:
        """Time left [s]."""
        return self._playback.left

    def instruct(self, instruction: str) -> None:
        """It moves as recorded, whatever is said."""

    def start(self, sight: Sight) -> None:
        """Begin where the robot is."""
        self._playback.start(sight.q)

    def targets(self, sight: Sight) -> Array:
        """The next targets (H, n)."""
        return self._playback.targets(sight.q)

    def executed(self, sent: Executed) -> None:
        """The clock waits by itself while the robot lags."""


class OntoRobot(PolicyNode):
    """The policy node with a rollout for a policy; it ends its process when the motion has ended."""

    def __init__(self, run: RunConfig, rollout: Rollout, speed: float, **options: Any):
        self._recorded: Recorded | None = None
        self._over = 0.0

        def choose(run: RunConfig, robot: RobotModel) -> Recorded:
            self._recorded = Recorded(slowed(load(rollout, robot), speed))
            return self._recorded

        super().__init__(run, choose=choose, **options)
        self.create_timer(0.1, self._end)

    def _end(self) -> None:
        """Stop talking some time after the last target: the filter then holds."""
        if not (self._active and self._started) or self._recorded is None or self._recorded.left > 0:
            return
        self._over += 0.1
        if self._over >= END:
            self._over = -np.inf
            self.get_logger().info("the rollout has ended")
            os.kill(os.getpid(), signal.SIGTERM)


class OntoTopics(Node):
    """Joint states and object poses of a rollout, on its clock times ``speed``."""

    def __init__(self, rollout: Rollout, speed: float, **options: Any):
        super().__init__("palmar_replay", **options)
        if not len(rollout.joints.t):
            raise ConfigError(f"{rollout.path}: no joint states")
        self.rollout, self.speed, self.over = rollout, speed, False
        self._joints = rollout.header.robot.joints
        self._states = self.create_publisher(JointState, topics.JOINT_STATES, 10)
        self._poses = {n: self.create_publisher(PoseStamped, topics.pose(n), 10) for n in rollout.objects}
        self._sent: dict[str, int] = {}
        self._begin, self._start = float(rollout.joints.t[0]), time.monotonic() + GRAPH
        self._alone, self._last = False, -1
        self.create_timer(1 / RATE, self._tick)

    def _tick(self) -> None:
        """Whatever is due; a slow machine leaves readings out, it does not play slower."""
        since = time.monotonic() - self._start
        if since < 0 or self.over:
            return
        if not self._alone:
            self._refuse_company()
        t, recorded = self._begin + self.speed * since, self.rollout.joints
        now = self.get_clock().now().to_msg()
        row = max(0, int(np.searchsorted(recorded.t, t, side="right")) - 1)
        state = {"q": recorded.q[row], "qd": self.speed * recorded.qd[row], "tau": recorded.tau[row]}
        if row != self._last:
            self._states.publish(outgoing.joint_state(self._joints, state, now))
            self._last = row
        for name, poses in self.rollout.objects.items():
            k = int(np.searchsorted(poses.t, t, side="right"))
            if (found := pose_at(poses, t)) is not None and k != self._sent.get(name):
                self._sent[name] = k
                self._poses[name].publish(outgoing.pose(*found, now))
        self.over = t >= float(recorded.t[-1])

    def _refuse_company(self) -> None:
        """Stop where somebody else publishes joint states.

        Raises:
            ConfigError: With the topic's full name.
        """
        self._alone = self.count_publishers(topics.JOINT_STATES) == 1
        if not self._alone:
            raise ConfigError(
                f"{self.resolve_topic_name(topics.JOINT_STATES)} has another publisher: a robot is here; "
                "replay in another namespace"
            )


def onto_topics(rollout: Rollout, speed: float, argv: Sequence[str]) -> int:
    """Publish the rollout once."""
    rclpy.init(args=list(argv))
    try:
        node = OntoTopics(rollout, speed)
        while not node.over:
            rclpy.spin_once(node, timeout_sec=0.1)
        node.get_logger().info("the rollout has ended")
    except (ExternalShutdownException, KeyboardInterrupt):
        pass
    finally:
        try_shutdown()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Replay ``--rollout FILE`` onto topics, or onto the robot of ``--config FILE``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="replay", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--rollout", type=Path, required=True)
    parser.add_argument("--target", choices=["topics", "robot"], default="topics")
    parser.add_argument("--speed", type=float, default=0.3, help="share of the recorded speed, above 0 and up to 1")
    args, rest = parser.parse_known_args(argv)
    try:
        rollout = read(args.rollout)
        slowed(load(rollout, rollout.header.robot), args.speed)
        if args.target == "topics":
            return onto_topics(rollout, args.speed, rest)
    except PalmarError as error:
        sys.stderr.write(f"replay: {error}\n")
        return 1
    return spinning.main("policy", lambda run: OntoRobot(run, rollout, args.speed), rest)


if __name__ == "__main__":
    raise SystemExit(main())
