"""Foreign, cut off, damaged and newer files are refused by name; a killed recorder loses at most a second."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mcap.writer import Writer

from palmar.rollouts import schema
from palmar.rollouts.read import read
from palmar.safety.types import RolloutRefused


def _file(path: Path, records: dict[str, str] | None, attachments: dict[str, bytes]) -> Path:
    with path.open("wb") as stream:
        out = Writer(stream)
        out.start()
        if records is not None:
            out.add_metadata(schema.METADATA, records)
        for name, data in attachments.items():
            out.add_attachment(0, 0, name, "", data)
        out.finish()
    return path


def test_a_text_file_an_empty_file_and_a_missing_file_are_refused_by_name(tmp_path):
    for name, data in (("notes.mcap", b"hello, this is a text file"), ("empty.mcap", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RolloutRefused, match=f"{name}: not an MCAP file"):
            read(tmp_path / name)
        with pytest.raises(RolloutRefused, match=f"{name}: not an MCAP file"):
            read(tmp_path / name, recover=True)
    with pytest.raises(RolloutRefused, match="gone.mcap: cannot be read"):
        read(tmp_path / "gone.mcap")


def test_an_mcap_of_somebody_else_is_refused(tmp_path):
    with pytest.raises(RolloutRefused, match="other.mcap: no metadata record 'palmar'"):
        read(_file(tmp_path / "other.mcap", None, {}))


def test_a_newer_format_is_refused_with_both_versions(small, tmp_path):
    head = small.header()
    newer = head.to_metadata() | {"format_version": "99"}
    with pytest.raises(RolloutRefused, match="new.mcap: format version 99, this Palmar reads up to 1"):
        read(_file(tmp_path / "new.mcap", newer, head.to_attachments()))


def test_an_exchanged_constraint_file_is_refused(small, tmp_path):
    head = small.header()
    other = replace(head, constraints=small.CONSTRAINTS.replace("limit: 5.0", "limit: 50.0"))
    with pytest.raises(RolloutRefused, match="a.mcap: constraint_hash"):
        read(_file(tmp_path / "a.mcap", head.to_metadata(), other.to_attachments()))


def test_a_missing_attachment_is_refused(small, tmp_path):
    files = small.header().to_attachments()
    del files[schema.ROBOT_JSON]
    with pytest.raises(RolloutRefused, match="robot.json"):
        read(_file(tmp_path / "a.mcap", small.header().to_metadata(), files))


def test_a_cut_off_file_is_refused_and_recovered_on_request(recorded, tmp_path):
    data = recorded[0].read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(data[: len(data) - 40])
    with pytest.raises(RolloutRefused, match="cut.mcap: truncated"):
        read(cut)
    run = read(cut, recover=True)
    assert not run.complete and run.damage and np.array_equal(run.joints.q, recorded[1].q)


def test_damaged_bytes_are_refused_or_harmless_but_never_another_error(small, tmp_path):
    """120 files with flipped, cut or doubled bytes: RolloutRefused, or exactly the recorded numbers."""
    path = tmp_path / "whole.mcap"
    truth = small.simulate(path, steps=40)
    data, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for i in range(120):
        bad = bytearray(data)
        at = int(rng.integers(len(data)))
        if i % 3 == 0:
            bad[at] ^= 1 << int(rng.integers(8))
        elif i % 3 == 1:
            del bad[at : at + int(rng.integers(1, 2000))]
        else:
            bad[at:at] = data[at : at + int(rng.integers(1, 200))]
        (tmp_path / "bad.mcap").write_bytes(bad)
        try:
            run = read(tmp_path / "bad.mcap")
        except RolloutRefused as error:
            assert "bad.mcap" in str(error)
            refused += 1
        else:
            assert np.array_equal(run.joints.q, truth.q) and np.array_equal(run.command.uddd, truth.uddd)
        try:
            read(tmp_path / "bad.mcap", recover=True)
        except RolloutRefused:
            pass
    assert refused > 90


RECORDER = """
    import json, sys, time
    import numpy as np
    from palmar.rollouts.header import RolloutHeader
    from palmar.rollouts.record import RolloutWriter
    from palmar.safety.robot import RobotModel

    robot = RobotModel.from_json(json.loads(open(sys.argv[2]).read()))
    head = RolloutHeader("t", "i", robot, open(sys.argv[3]).read(), 0.01)
    with RolloutWriter(sys.argv[1], head) as out:
        for k in range(10**6):
            t = time.monotonic()
            out.joint_state(k * 0.01, np.full(3, k), np.full(3, t), np.zeros(3))
            if k == 60:
                time.sleep(1.5)  # nothing new for a while: the last samples must reach the file all the same
            if k in (60, 150):
                print(k, flush=True)
            time.sleep(0.01)
"""


@pytest.mark.parametrize("last", [60, 150])
def test_sigkill_loses_at_most_the_last_second(small, tmp_path, last):
    (tmp_path / "robot.json").write_text(json.dumps(small.header().robot.to_json()))
    (tmp_path / "c.yaml").write_text(small.CONSTRAINTS)
    path = tmp_path / "killed.mcap"
    command = [sys.executable, "-c", textwrap.dedent(RECORDER), str(path)]
    with subprocess.Popen(
        [*command, str(tmp_path / "robot.json"), str(tmp_path / "c.yaml")], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) != last:
            pass
        os.kill(child.pid, signal.SIGKILL)
        killed = time.monotonic()
    with pytest.raises(RolloutRefused, match="killed.mcap: truncated"):
        read(path)
    run = read(path, recover=True)
    written = run.joints.qd[:, 0]
    assert run.success is None and not run.complete
    assert np.array_equal(run.joints.q[:, 0], np.arange(len(written)))
    lost = killed - written[-1]
    assert lost <= (1.0 if last == 150 else 2.6)
    # After 1.5 s of silence nothing is lost at all.
    assert last == 150 or len(written) == 61
