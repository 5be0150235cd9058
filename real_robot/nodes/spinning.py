"""Running one lifecycle node in a process of its own until SIGTERM."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from palmar.real_robot.config import RunConfig
from palmar.real_robot.process import Stopping, begin


def main(name: str, make: Callable[[RunConfig], Any], argv: Sequence[str] | None) -> int:
    """Make the node, spin it, and deactivate it at the end."""
    argv = list(sys.argv[1:] if argv is None else argv)
    run, log = begin(name, argv)
    stopping = Stopping()
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
        rclpy.try_shutdown()
    return 0
