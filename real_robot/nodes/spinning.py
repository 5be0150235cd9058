"""Running one lifecycle node in a process of its own until SIGTERM."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from palmar.real_robot import realtime
from palmar.real_robot.config import RunConfig
from palmar.real_robot.process import Stopping, begin
from palmar.safety.types import PalmarError


def logged(transition: Callable[..., TransitionCallbackReturn]) -> Callable[..., TransitionCallbackReturn]:
    """A transition whose exceptions are logged; rclpy turns them into an error without a word."""

    @wraps(transition)
    def call(node: Any, state: Any) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except PalmarError as error:
            node.get_logger().error(f"{transition.__name__} failed: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            node.get_logger().error(f"{transition.__name__} failed: {traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    return call


def main(name: str, make: Callable[[RunConfig], Any], argv: Sequence[str] | None, *, nice: int = -10) -> int:
    """Make the node, spin it, shut it down at the end; ``nice`` is asked for: positive is less of the processor."""
    argv = list(sys.argv[1:] if argv is None else argv)
    run, log = begin(name, argv)
    stopping = Stopping()
    realtime.prefer(nice)
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO, domain_id=run.domain or None)
    node = make(run)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    log.info("%s up, process %d", node.get_fully_qualified_name(), os.getpid())
    try:
        while not stopping:
            executor.spin_once(timeout_sec=0.1)
    except ExternalShutdownException:
        pass
    finally:
        node.trigger_shutdown()
        node.destroy_node()
        try_shutdown()
    return 0
