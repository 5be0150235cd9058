"""Replay a rollout: ros2 launch palmar_bringup replay.launch.py rollout:=FILE target:=topics|robot speed:=0.3.

``target:=topics`` publishes joint states and object poses to look at, and commands nobody.  ``target:=robot`` starts
what ``deploy.launch.py`` starts, with the rollout in place of the policy: the filter has the last word.
"""

from launch import Action, LaunchContext, LaunchDescription
from launch_ros.actions import Node
from palmar_bringup import graph, prepare
from palmar_bringup.arguments import REPLAY, yes


def start(context: LaunchContext) -> list[Action]:
    """Everything, once the arguments are known."""
    given = graph.given(context, REPLAY, "replay.launch.py")
    told = ("--rollout", prepare.rollout(given), "--target", given["target"], "--speed", given["speed"])
    return onto_robot(given, told) if given["target"] == "robot" else onto_topics(given, told)


def onto_topics(given: dict[str, str], told: tuple[str, ...]) -> list[Action]:
    """One node; its end is the end."""
    namespace = prepare.full(given["namespace"])
    node = Node(package="palmar_nodes", executable="replay", namespace=namespace, arguments=[*told])
    described = graph.state_publisher(given["robot"], namespace, given["state_publisher"])
    return [graph.ends_with(node), node, *described]


def onto_robot(given: dict[str, str], told: tuple[str, ...]) -> list[Action]:
    """The graph of a deployment; the end of the motion is the end."""
    run, config = prepare.replay(given, prepare.folder(given))
    bridge = graph.lifecycle("bridge", run, config, given["parameters"])
    motion = graph.lifecycle("policy", run, config, given["parameters"], *told, executable="replay")
    described = graph.state_publisher(given["robot"], run.namespace, given["state_publisher"])
    nodes = {"bridge": bridge, "replay": motion}
    return [
        graph.ends_with(motion),
        *graph.deployed(run, config, nodes, record=yes(given["record"]), described=described),
    ]


def generate_launch_description() -> LaunchDescription:
    """See the module."""
    return LaunchDescription([*graph.declared(REPLAY), graph.opaque(start)])
