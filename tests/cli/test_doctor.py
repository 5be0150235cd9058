"""palmar doctor: what it reports, and what it says when something is really missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from palmar.cli import machine, probes
from palmar.cli.machine import FAIL, OK, WARN, Check

NO_EGL = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent", "__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent"}
"""Takes every driver from the EGL loader: what a machine without libegl-mesa0 looks like."""


@pytest.fixture(scope="module")
def done():
    """What the command says here; its probes take seconds, so once."""
    return subprocess.run(
        [sys.executable, "-m", "palmar.cli.main", "doctor", "--json"], capture_output=True, text=True, timeout=300
    )


def test_json_has_a_row_per_check_each_with_status_and_fix(done):
    report = json.loads(done.stdout)
    rows = {row["name"]: row for row in report["rows"]}
    asked = {"Python", "system", "packages", "torch", "CUDA", "ROS 2", "rendering", "real time", "disk"}
    assert asked <= set(rows)
    assert all(set(row) == {"name", "status", "found", "fix"} for row in rows.values())
    assert all(row["status"] in (OK, WARN, FAIL) and row["found"] for row in rows.values())
    assert all(row["fix"] for row in rows.values() if row["status"] == FAIL)
    failed = any(row["status"] == FAIL for row in rows.values())
    assert report["ready"] is not failed
    assert done.returncode == (1 if failed else 0)


def test_rclpy_torch_and_palmar_are_tried_in_one_interpreter(done):
    pytest.importorskip("rclpy")
    (row,) = (row for row in json.loads(done.stdout)["rows"] if row["name"] == "ROS 2")
    assert row["status"] == OK and f"{sys.version_info[0]}.{sys.version_info[1]}" in row["found"]


def test_without_a_driver_rendering_is_a_warning_that_names_the_packages(monkeypatch):
    for name, value in NO_EGL.items():
        monkeypatch.setenv(name, value)
    row = probes.gl()
    if row.status == OK:
        assert row.found.startswith("osmesa")
        return
    assert row.status == WARN and row.found.startswith("none; reports come without video (egl: ")
    assert "libegl1 libegl-mesa0 libgl1-mesa-dri" in row.fix and "libosmesa6" in row.fix


def test_the_drawing_probe_does_not_pass_a_backend_that_is_none():
    good, said = probes.tried([sys.executable, "-c", probes.DRAW], MUJOCO_GL="disable")
    assert not good and said


def test_without_rclpy_the_fix_is_the_extra_or_a_distribution(monkeypatch, tmp_path):
    (tmp_path / "rclpy.py").write_text("raise ImportError('no rclpy here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    row = probes.ros()
    assert row.status == WARN and "no rclpy here" in row.found and "palmar[ros]" in row.fix


def test_a_distribution_whose_python_lacks_a_package_gets_the_four_lines(tmp_path):
    (tmp_path / "jazzy").mkdir()
    (tmp_path / "jazzy" / "setup.bash").write_text("export ROS_DISTRO=jazzy\n")
    (row,) = probes.distributions(tmp_path)
    assert (row.name, row.status) == ("ROS 2 jazzy", WARN)
    assert "No module named" in row.found
    assert f"source {tmp_path}/jazzy/setup.bash" in row.fix and "--system-site-packages" in row.fix


def test_a_machine_without_a_distribution_has_no_row_for_one(tmp_path):
    assert probes.distributions(tmp_path) == []


def test_a_probe_that_dies_or_hangs_is_reported(monkeypatch):
    good, said = probes.tried([sys.executable, "-c", "import os; os.abort()"])
    assert not good and "status -6" in said
    monkeypatch.setattr(probes, "LIMIT", 0.5)
    good, said = probes.tried([sys.executable, "-c", "import time; time.sleep(9)"])
    assert not good and said.startswith("TimeoutExpired")
    good, said = probes.tried(["/nonexistent"])
    assert not good and said.startswith("FileNotFoundError")


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="no real-time scheduling here")
def test_real_time_permission_is_tried_not_guessed():
    row = probes.realtime()
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(60))
            os._exit(0)
        except OSError:
            os._exit(1)
    allowed = os.waitpid(pid, 0)[1] == 0
    assert (row.status == OK) is allowed
    assert allowed or "/etc/security/limits.d" in row.fix
    cores = os.sched_getaffinity(0)
    told = (
        f"; core {max(cores)} for the control process alone" if len(cores) > 1 else "; no core for the control process"
    )
    assert told in row.found


def test_a_package_of_the_wrong_version_fails_and_an_absent_extra_does_not(monkeypatch):
    asked = [
        "numpy>=999",
        "no-such-thing>=1",
        "rich>=1",
        'rerun-nowhere>=1; extra == "viewer"',
        'rich>=999; extra == "x"',
    ]
    monkeypatch.setattr(machine, "requires", lambda name: asked)
    head, *rows = machine.pins()
    assert (head.status, head.found) == (FAIL, "1 of 4 versions accepted")
    assert [(r.name, r.status) for r in rows] == [("numpy", FAIL), ("no-such-thing", FAIL), ("rich", WARN)]
    assert rows[0].fix == "pip install 'numpy>=999'"


def test_a_failed_check_gives_exit_code_1_and_its_fix(palmar, monkeypatch):
    from palmar.cli import doctor

    monkeypatch.setattr(doctor, "examine", lambda: [Check("Python", FAIL, "3.9", "use Python 3.12")])
    code, out, _ = palmar("doctor")
    assert code == 1 and "use Python 3.12" in out and "not ready" in out
    assert json.loads(palmar("doctor", "--json")[1])["ready"] is False


def test_a_full_disk_is_a_warning(monkeypatch):
    monkeypatch.setattr(machine, "DISK", 1e30)
    assert machine.disk(Path("/")).status == WARN
