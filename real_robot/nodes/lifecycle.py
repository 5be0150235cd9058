"""Drive lifecycle nodes through transitions, as a launch file does: ``--do configure --do activate``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rclpy.utilities import try_shutdown

from palmar.real_robot import config

TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}


def change(node: Node, name: str, transition: str, timeout: float) -> str:
    """Send node ``name`` through a transition; what went wrong, '' for nothing."""
    client = node.create_client(ChangeState, f"{name}/change_state")
    try:
        end = time.monotonic() + timeout
        if not client.wait_for_service(timeout_sec=timeout):
            return f"{name} did not appear within {timeout} s"
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[transition]))
        future = client.call_async(request)
        rclpy.spin_until_future_complete(node, future, timeout_sec=max(0.1, end - time.monotonic()))
        answer = future.result()
        if answer is None:
            return f"{name} did not answer {transition} within {timeout} s"
        return "" if answer.success else f"{name} refused to {transition}; see its log"
    finally:
        node.destroy_client(client)


def main(argv: Sequence[str] | None = None) -> int:
    """Every transition for every node, in the order given; exit status 1 at the first failure."""
    parser = argparse.ArgumentParser(prog="lifecycle")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--node", action="append", required=True)
    parser.add_argument("--do", action="append", required=True, choices=sorted(TRANSITIONS))
    parser.add_argument("--timeout", type=float, default=20.0)
    args = parser.parse_args(argv)
    run = config.read(args.config)
    rclpy.init(domain_id=run.domain or None)
    node = rclpy.create_node("palmar_lifecycle")
    try:
        for transition in args.do:
            for name in args.node:
                if problem := change(node, f"{run.namespace}/{name}", transition, args.timeout):
                    sys.stderr.write(problem + "\n")
                    return 1
    finally:
        node.destroy_node()
        try_shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
