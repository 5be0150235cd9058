import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from palmar.real_robot import shared
from palmar.real_robot.layout import LAYOUTS, control_layout

DESCRIPTION = shared.Description(kind="control", robot="ab" * 32, joints=("a", "b", "c"), constraints=("x",))


@pytest.fixture
def path():
    path = shared.directory() / f"palmar-test-{os.getpid()}-{time.monotonic_ns()}"
    yield path
    path.unlink(missing_ok=True)


def make(path):
    return shared.create(path, DESCRIPTION, control_layout(DESCRIPTION))


HAMMER = """
import sys
from pathlib import Path
from palmar.real_robot import shared
from palmar.real_robot.layout import LAYOUTS
m = shared.attach(Path(sys.argv[1]), LAYOUTS, kind="control")
b = m.blocks["chunk"]
print("go", flush=True)
k = 0
while True:
    k += 1
    b.record["seq"], b.record["q"], b.record["t"] = k, k, k
    b.write()
"""


def start(code, path):
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "go\n"
    return child


def test_a_torn_write_is_never_read_and_a_killed_writer_leaves_the_file_to_its_owner(path):
    owned = make(path)
    child = start(HAMMER, path)
    try:
        seen, torn, end = 0, 0, time.monotonic() + 60.0
        while seen < 5000 and time.monotonic() < end:
            try:
                r = owned.blocks["chunk"].read()
            except shared.TornRead:
                torn += 1
                continue
            if r is not None:
                assert np.all(r["q"] == r["seq"]) and np.all(r["t"] == r["seq"])
                seen += 1
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert seen == 5000, (seen, torn)
    assert path.exists()
    owned.blocks["chunk"].record["seq"] = -7  # whatever state the killed writer left, the next one gets through
    owned.blocks["chunk"].write()
    assert owned.blocks["chunk"].read()["seq"] == -7
    owned.close()
    assert not path.exists()


def test_a_half_written_block_is_refused_and_so_is_a_damaged_one(path):
    owned = make(path)
    block = owned.blocks["chunk"]
    block.write()
    block._seq[0] += np.uint64(1)
    with pytest.raises(shared.TornRead):
        block.read()
    assert block.latest() is None
    block.write()
    seen = block.latest()
    assert block.read() is not None
    block._data[5] ^= 1
    with pytest.raises(shared.TornRead):
        block.read()
    assert block.latest() is seen
    owned.close()


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [(0, b"X", "no Palmar memory"), (8, struct.pack("<I", 99), "version 99"), (60, b"#", "damaged")],
)
def test_foreign_newer_and_damaged_headers_are_refused(path, at, value, message):
    owned = make(path)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value)
    with pytest.raises(shared.SharedMemoryError, match=message):
        shared.attach(path, LAYOUTS, kind="control")
    owned.close()


def test_other_robot_kind_size_and_a_second_owner_are_refused(path):
    owned = make(path)
    with pytest.raises(shared.SharedMemoryError, match="made for robot"):
        shared.attach(path, LAYOUTS, kind="control", robot="cd" * 32)
    with pytest.raises(shared.SharedMemoryError, match="kind"):
        shared.attach(path, LAYOUTS, kind="twin")
    with pytest.raises(shared.SharedMemoryError, match="exists"):
        make(path)
    os.truncate(path, path.stat().st_size - 64)
    with pytest.raises(shared.SharedMemoryError, match="bytes"):
        shared.attach(path, LAYOUTS, kind="control")
    owned.close()
    with pytest.raises(shared.SharedMemoryError, match="did not appear"):
        shared.wait_attach(path, LAYOUTS, kind="control", robot=None, timeout=0.05)


def test_a_ring_keeps_order_and_counts_what_it_drops(path):
    owned = make(path)
    other = shared.attach(path, LAYOUTS, kind="control")
    ring, reader = owned.rings["ticks"], other.rings["ticks"]
    expected, got = 0, 0
    sizes = (3000, 6000, 8000, ring.capacity + 808)
    for size in sizes:
        for _ in range(size):
            ring.record["index"] = expected
            expected += ring.push()
        while len(reader):
            records = reader.drain(1000)
            assert list(records["index"]) == list(range(got, got + len(records)))
            got += len(records)
    assert got == expected and ring.dropped == reader.dropped == sum(sizes) - expected == 808
    owned.close()
