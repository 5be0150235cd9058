"""What tests leave behind: processes, listening ports, shared memory."""

import os
import uuid
from pathlib import Path

import psutil

MARK = "PALMAR_TEST_RUN"
"""Every process that a test starts inherits this variable, and keeps it when its parent is gone."""
RUN = os.environ[MARK] = uuid.uuid4().hex
SHARED = Path("/dev/shm")


def present():
    """What is there before: shared files, and ports that a plugin of pytest may hold all the time."""
    return (set(SHARED.iterdir()) if SHARED.is_dir() else set()) | listening()


def listening():
    return {c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}


def leaked(before):
    """What is there and should not be: marked processes, our listening ports, shared files that nobody holds."""
    processes = [f"process {p.pid}: {command(p)}" for p in psutil.process_iter() if p.pid != os.getpid() and marked(p)]
    ports = [f"port {address}" for address in listening() - before]
    files = [f"file {x}" for x in present() - before - listening() if not held(x)]
    return processes + ports + files


def marked(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == RUN
    except psutil.Error:
        return False


def command(process):
    try:
        return " ".join(process.cmdline())[:200]
    except psutil.Error:
        return "gone"


def held(path):
    """Whether a process has the file mapped or open (another run beside this one), or it is gone by now."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(path) in (process / "maps").read_text():
                return True
            if any(os.readlink(fd) == str(path) for fd in (process / "fd").iterdir()):
                return True
        except OSError:
            continue
    return not path.exists()
