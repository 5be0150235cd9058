"""Deploy a policy: ros2 launch palmar_bringup deploy.launch.py policy:=BUNDLE instruction:='lift the red block'.

The same processes as ``palmar deploy``, with the same configuration.  Nodes go through the explicit lifecycle
chain: configure; when inactive, activate.  The bridge comes first, the policy once the bridge is active.
"""

import time
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler, Shutdown, TimerAction
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition
from palmar_bringup import prepare

from palmar.sim.robots import load_robot
from palmar.sim.urdf import urdf

ARGUMENTS = {
    "robot": ("fr3_leap", "robot model, a name in configs/robot"),
    "hardware": ("twin", "what moves: the twin"),
    "mode": ("enforce", "enforce, or shadow: the filter only judges"),
    "policy": ("", "folder of a policy bundle; empty sways every joint a little"),
    "instruction": ("lift the red block", "what to do"),
    "record": ("true", "whether to write a rollout"),
    "out": ("", "folder for rollout, configuration and logs; empty makes one under palmar_runs"),
}
UP = 3.0
"""When nodes are taken to answer; the bridge then waits for the control process by itself [s]."""


def change(node: LifecycleNode, transition: int) -> EmitEvent:
    """Ask a node for a transition."""
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))


def when_reached(node: LifecycleNode, start: str, goal: str, then: list) -> RegisterEventHandler:
    """Do something once a node came from one state to another."""
    handler = OnStateTransition(target_lifecycle_node=node, start_state=start, goal_state=goal, entities=then)
    return RegisterEventHandler(handler)


def start(context: LaunchContext) -> list:
    """Everything, once the arguments are known."""
    arguments = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    out = Path(arguments["out"] or f"palmar_runs/{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    config = ["--config", str(prepare.write_run(arguments, out))]
    plain = [Node(package="palmar_nodes", executable=p, arguments=config) for p in prepare.processes(arguments)]
    description = {"robot_description": urdf(load_robot(arguments["robot"]))}
    plain.append(Node(package="robot_state_publisher", executable="robot_state_publisher", parameters=[description]))
    bridge, policy = (
        LifecycleNode(
            package="palmar_nodes",
            executable=name,
            name=f"palmar_{name}",
            namespace="",
            arguments=config,
            parameters=[[FindPackageShare("palmar_bringup"), "/config/deploy.yaml"]] if name == "bridge" else [],
        )
        for name in ("bridge", "policy")
    )
    chain = [
        when_reached(bridge, "configuring", "inactive", [change(bridge, Transition.TRANSITION_ACTIVATE)]),
        when_reached(bridge, "activating", "active", [change(policy, Transition.TRANSITION_CONFIGURE)]),
        when_reached(policy, "configuring", "inactive", [change(policy, Transition.TRANSITION_ACTIVATE)]),
    ]
    ends = [RegisterEventHandler(OnProcessExit(target_action=p, on_exit=[Shutdown()])) for p in (*plain, bridge)]
    first = TimerAction(period=UP, actions=[change(bridge, Transition.TRANSITION_CONFIGURE)])
    return [*chain, *ends, *plain, bridge, policy, first]


def generate_launch_description() -> LaunchDescription:
    """See the module."""
    declared = [DeclareLaunchArgument(n, default_value=v, description=d) for n, (v, d) in ARGUMENTS.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
