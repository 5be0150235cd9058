"""The check at the end of every module (conftest.py) sees what it must, and only that."""

import os
import signal
import socket
import subprocess
from pathlib import Path

from leaks import leaked, present


def test_nothing_is_found_where_nothing_is_left():
    assert leaked(present()) == []


def test_a_process_is_found_when_its_parent_is_gone():
    pid = int(subprocess.run(["sh", "-c", "sleep 60 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True).stdout)
    try:
        assert leaked(present()) == [f"process {pid}: sleep 60"]
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_listening_port_is_found():
    before = present()
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert [x.startswith("port") and str(server.getsockname()[1]) in x for x in leaked(before)] == [True]


def test_shared_memory_is_found_once_nobody_holds_it():
    before, path = present(), Path(f"/dev/shm/palmar-leak-{os.getpid()}")
    try:
        with path.open("w"):
            assert leaked(before) == []
        assert leaked(before) == [f"file {path}"]
    finally:
        path.unlink()
