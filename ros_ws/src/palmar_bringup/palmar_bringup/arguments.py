"""Launch arguments: what each may be, and the refusal of what it may not; no ROS in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

YES_NO = ("true", "false")


@dataclass(frozen=True)
class Argument:
    """One launch argument."""

    default: str
    says: str
    accepted: tuple[str, ...] = ()
    """All there is; () for any text."""
    span: tuple[float, float] | None = None
    """A number from and to."""

    def wrong(self, value: str) -> str:
        """What is accepted, if ``value`` is not; '' if it is."""
        if self.accepted and value not in self.accepted:
            return f"accepted {list(self.accepted)}"
        if self.span is not None:
            low, high = self.span
            try:
                good = low <= float(value) <= high  # NaN compares false
            except ValueError:
                good = False
            return "" if good else f"accepted a number from {low} to {high}"
        return ""


COMMON = {
    "robot": Argument("fr3_leap", "robot model: a name in configs/robot"),
    "hardware": Argument(
        "twin",
        "what moves: the twin, real drivers on fakes of their hardware, the real robot",
        ("twin", "fake", "real"),
    ),
    "devices": Argument("", "file of the devices: a name in configs/hardware or a path; empty is the robot's"),
    "namespace": Argument("", "of every node and topic, for a second robot on the same domain"),
    "state_publisher": Argument("auto", "robot_state_publisher; auto: where it is installed", ("auto", *YES_NO)),
    "parameters": Argument("", "file of node parameters; empty takes palmar_bringup's config/deploy.yaml"),
    "out": Argument("", "folder for rollout, configuration and logs; empty makes one under palmar_runs"),
}
DEPLOY = {
    **COMMON,
    "mode": Argument("enforce", "enforce, or shadow: the filter only judges", ("enforce", "shadow")),
    "policy": Argument("", "folder of a policy bundle; empty sways every joint a little"),
    "alignment": Argument("glide", "where the first command is far: glide there, or refuse", ("glide", "refuse")),
    "instruction": Argument("lift the red block", "what to do, in words"),
    "record": Argument("true", "whether to write a rollout", YES_NO),
    "cameras": Argument("false", "node palmar_images: the twin's cameras, or RealSense on hardware", YES_NO),
}
RECORD = {
    "run": Argument("", "folder of a run that was started with record:=false"),
}
REPLAY = {
    **COMMON,
    "rollout": Argument("", "the rollout to replay"),
    "target": Argument("topics", "topics: show it; robot: move, through the filter", ("topics", "robot")),
    "speed": Argument("0.3", "share of the recorded speed", span=(0.05, 1.0)),
    "record": Argument("true", "whether to write a rollout of the replay (target:=robot)", YES_NO),
}


class Refused(ValueError):
    """A launch argument that cannot be, with those that can."""


def check(table: Mapping[str, Argument], given: Mapping[str, str]) -> None:
    """Refuse impossible launch arguments before anything starts.

    Raises:
        Refused: With what was given and what is accepted.
    """
    for name, argument in table.items():
        if problem := argument.wrong(given[name]):
            raise Refused(f"{name} is {given[name]!r}, {problem}")


def strangers(table: Mapping[str, Argument], words: Sequence[str], launch_file: str) -> None:
    """Refuse a misspelt argument, which launch itself would pass over in silence.

    Args:
        table: The launch file's arguments.
        words: The command line; judged only if it names this launch file, for one that includes it has its own.
        launch_file: Name of this launch file.

    Raises:
        Refused: With the unknown names and the known ones.
    """
    if launch_file not in [Path(word).name for word in words]:
        return
    unknown = sorted({word.split(":=")[0] for word in words if ":=" in word} - set(table))
    if unknown:
        raise Refused(f"unknown launch arguments {unknown}, accepted {sorted(table)}")


def yes(text: str) -> bool:
    """``true`` or ``false`` as a checked argument says it."""
    return text == "true"
