"""What the launch files have in common: nodes, processes, and the explicit lifecycle chain between them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import Action, LaunchContext
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.ros_adapters import get_ros_adapter
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from palmar_bringup import environment, prepare
from palmar_bringup.arguments import Argument, strangers
from palmar_bringup.prepare import Process

if TYPE_CHECKING:
    from palmar.real_robot.config import RunConfig

OVERRIDE = "ROS_SECURITY_ENCLAVE_OVERRIDE"
"""Would put every process into one enclave."""
FAILURES = (
    ("configuring", "unconfigured"),
    ("configuring", "errorprocessing"),
    ("activating", "inactive"),
    ("activating", "errorprocessing"),
)
LAST_WORDS = "20"
"""How long a process may take to end by itself: the recorder writes what is left [s]."""


def declared(table: Mapping[str, Argument]) -> list[DeclareLaunchArgument]:
    """The arguments for ``--show-args``; what they may be is checked by ``given``, in one place for all."""
    return [
        DeclareLaunchArgument(
            name, default_value=a.default, description=f"{a.says} {list(a.accepted)}" if a.accepted else a.says
        )
        for name, a in table.items()
    ]


def opaque(function: object) -> OpaqueFunction:
    """What is made once the arguments are known."""
    return OpaqueFunction(function=function)


def given(context: LaunchContext, table: Mapping[str, Argument], launch_file: str) -> dict[str, str]:
    """What the arguments are, after refusing misspelt ones; before it, Palmar may not be importable.

    Also settles whose enclave is whose: launch's own node takes that of the environment, the children name theirs.
    """
    strangers(table, sys.argv, launch_file)
    environment.enter(Path(get_package_prefix("palmar_nodes")) / "lib" / "palmar_nodes" / "ready")
    if OVERRIDE in context.environment:
        get_ros_adapter(context)
        del context.environment[OVERRIDE]
    return {name: LaunchConfiguration(name).perform(context) for name in table}


def change(node: LifecycleNode, transition: int) -> EmitEvent:
    """Ask a node for a transition."""
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))


def when_reached(node: LifecycleNode, start: str, goal: str, then: list[Action]) -> RegisterEventHandler:
    """Do something once a node came from one state to another."""
    handler = OnStateTransition(target_lifecycle_node=node, start_state=start, goal_state=goal, entities=then)
    return RegisterEventHandler(handler)


def chain(nodes: Mapping[str, LifecycleNode]) -> list[Action]:
    """Configure and activate each node after the one before it is active; one that refuses ends everything."""
    actions: list[Action] = []
    names = list(nodes)
    for name, following in zip(names, [*names[1:], ""], strict=True):
        node = nodes[name]
        after = [change(nodes[following], Transition.TRANSITION_CONFIGURE)] if following else []
        actions += [
            when_reached(node, "configuring", "inactive", [change(node, Transition.TRANSITION_ACTIVATE)]),
            when_reached(node, "activating", "active", [LogInfo(msg=f"{name} is active"), *after]),
        ]
        for start, goal in FAILURES:
            actions.append(when_reached(node, start, goal, [opaque(refusal(f"{name} failed while {start}"))]))
    return actions


def begin(config: Path, first: LifecycleNode) -> list[Action]:
    """Configure the first node once the control process gives states."""
    ready = Node(package="palmar_nodes", executable="ready", arguments=["--config", str(config)])

    def then(event: ProcessExited, context: LaunchContext) -> Action | None:
        if context.is_shutdown:
            return None
        if event.returncode:
            return opaque(refusal("the control process did not get ready"))
        return change(first, Transition.TRANSITION_CONFIGURE)

    return [RegisterEventHandler(OnProcessExit(target_action=ready, on_exit=then)), ready]


def refusal(why: str) -> Callable[[LaunchContext], None]:
    """End the launch with exit status 1 and a reason; launch's own Shutdown would end it with 0."""

    def end(context: LaunchContext) -> None:
        raise RuntimeError(f"{why}; its log above says why")

    return end


def plain(processes: Sequence[Process], config: Path) -> list[Action]:
    """Processes without ROS; the recorder gets time to write what is left."""
    return [
        Node(
            package="palmar_nodes",
            executable=executable,
            arguments=["--config", str(config), *extra],
            ros_arguments=["--enclave", f"/palmar/{executable}"],
            sigterm_timeout=LAST_WORDS,
        )
        for executable, extra in processes
    ]


def deployed(
    run: RunConfig, config: Path, nodes: Mapping[str, LifecycleNode], *, record: bool, described: Sequence[Action]
) -> list[Action]:
    """The graph of a run: its processes, the bridge and whoever commands."""
    processes = plain(prepare.processes(run, record=record), config)
    return [
        *chain(nodes),
        *required([*processes, nodes["bridge"]]),
        *nodes.values(),
        *processes,
        *begin(config, nodes["bridge"]),
        *described,
    ]


def lifecycle(
    name: str, run: RunConfig, config: Path, parameters: str, *extra: str, executable: str = ""
) -> LifecycleNode:
    """The lifecycle node ``palmar_<name>`` in the run's namespace, of the executable ``name`` or another."""
    file = parameters or [FindPackageShare("palmar_bringup"), "/config/deploy.yaml"]
    return LifecycleNode(
        package="palmar_nodes",
        executable=executable or name,
        name=f"palmar_{name}",
        namespace=run.namespace,
        arguments=["--config", str(config), *extra],
        ros_arguments=["--enclave", f"/palmar/{name}"],
        parameters=[file],
    )


def state_publisher(robot: str, namespace: str, choice: str) -> list[Action]:
    """robot_state_publisher with the URDF of the robot's one model; frames carry the namespace.

    Raises:
        PackageNotFoundError: If it is asked for and not installed.
    """
    try:
        get_package_prefix("robot_state_publisher")
    except PackageNotFoundError:
        if choice == "true":
            raise
        return [LogInfo(msg="no robot_state_publisher here: /robot_description and /tf are not published")]
    if choice == "false":
        return []
    prefix = f"{namespace.strip('/')}/" if namespace else ""
    from palmar.sim.robots import load_robot
    from palmar.sim.urdf import urdf

    description = ParameterValue(urdf(load_robot(robot)), value_type=str)
    return [
        Node(
            package="robot_state_publisher",
            executable="robot_state_publisher",
            namespace=namespace,
            ros_arguments=["--enclave", "/palmar/state_publisher"],
            parameters=[{"robot_description": description, "frame_prefix": prefix}],
        )
    ]


def ends_with(process: Action) -> RegisterEventHandler:
    """End everything once this process has ended, well if it ended well."""

    def then(event: ProcessExited, context: LaunchContext) -> Action | None:
        if context.is_shutdown:
            return None
        if event.returncode:
            return opaque(refusal(f"{event.process_name} ended with status {event.returncode}"))
        return Shutdown(reason=f"{event.process_name} is done")

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=then))


def required(processes: Sequence[Action]) -> list[RegisterEventHandler]:
    """End everything once one of these has ended; what ends after that is the end."""

    def then(event: ProcessExited, context: LaunchContext) -> Action | None:
        if context.is_shutdown:
            return None
        return opaque(refusal(f"{event.process_name} ended with status {event.returncode}"))

    return [RegisterEventHandler(OnProcessExit(target_action=p, on_exit=then)) for p in processes]
