"""Deploy a policy: ros2 launch palmar_bringup deploy.launch.py policy:=BUNDLE instruction:='lift the red block'.

The same processes as ``palmar deploy``, with the same configuration.  Nodes go through the explicit lifecycle chain
once the control process gives states: configure; when inactive, activate; the bridge first, then the policy.  One
that refuses, and any process that ends, ends everything with exit status 1.
"""

from launch import Action, LaunchContext, LaunchDescription
from palmar_bringup import graph, prepare
from palmar_bringup.arguments import DEPLOY, yes


def start(context: LaunchContext) -> list[Action]:
    """Everything, once the arguments are known."""
    given = graph.given(context, DEPLOY, "deploy.launch.py")
    run, config = prepare.deployment(given, prepare.folder(given))
    names = ("bridge", *(("images",) if yes(given["cameras"]) else ()), "policy")
    nodes = {name: graph.lifecycle(name, run, config, given["parameters"]) for name in names}
    described = graph.state_publisher(given["robot"], run.namespace, given["state_publisher"])
    return graph.deployed(run, config, nodes, record=yes(given["record"]), described=described)


def generate_launch_description() -> LaunchDescription:
    """See the module."""
    return LaunchDescription([*graph.declared(DEPLOY), graph.opaque(start)])
