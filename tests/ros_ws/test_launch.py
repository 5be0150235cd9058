"""The launch files for real: only where ``ros2 launch`` and the built workspace are sourced (docs/ros2.md)."""

import pytest

from palmar.benchmarks import launch

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.skipif(bool(launch.missing()), reason=launch.missing() or "ros2 launch is here"),
]


@pytest.fixture(scope="module")
def rollout(tmp_path_factory):
    """A rollout that a launch recorded."""
    folder = tmp_path_factory.mktemp("twin")
    row = launch.launch(launch.CASES["twin"], folder)
    assert row["reached"] and row["status"] == 0 and not row["left"], row["log"]
    assert row["motion_s"] is not None, row["log"]
    return folder / "run" / "rollout.mcap"


@pytest.mark.parametrize("name", [name for name in launch.CASES if name != "twin"])
def test_a_launch_reaches_what_it_is_for_and_leaves_nothing_behind(name, rollout, tmp_path):
    row = launch.launch(launch.CASES[name], tmp_path, rollout=str(rollout))
    assert row["reached"] and row["status"] == row["status_expected"] and not row["left"], row["log"]


def test_a_launch_records_a_rollout_that_can_be_read(rollout):
    from palmar.rollouts.read import read

    found = read(rollout)
    assert found.complete and len(found.command.t) > 1000
