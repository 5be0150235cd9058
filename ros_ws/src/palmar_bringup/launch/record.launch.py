"""Record a run that was started with record:=false: ros2 launch palmar_bringup record.launch.py run:=palmar_runs/TIME.

The recorder drains rings in shared memory, so it runs on the machine of the control process.  What happened before
the rings' length is gone, and is counted in the rollout as dropped.
"""

from launch import Action, LaunchContext, LaunchDescription
from palmar_bringup import graph, prepare
from palmar_bringup.arguments import RECORD


def start(context: LaunchContext) -> list[Action]:
    """The recorder of the run."""
    given = graph.given(context, RECORD, "record.launch.py")
    (recorder,) = graph.plain((("recorder", ()),), prepare.running(given))
    return [*graph.required([recorder]), recorder]


def generate_launch_description() -> LaunchDescription:
    """See the module."""
    return LaunchDescription([*graph.declared(RECORD), graph.opaque(start)])
