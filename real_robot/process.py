"""What every process of a run does first: read the configuration, log, and heed SIGTERM."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from palmar.real_robot import config, realtime
from palmar.safety.types import PalmarError


class Stopping:
    """Set by SIGTERM or SIGINT; a second signal is no different from the first."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, number: int, frame: object) -> None:
        self.requested = True

    def __bool__(self) -> bool:
        return self.requested


def begin(name: str, argv: Sequence[str] | None) -> tuple[config.RunConfig, logging.Logger]:
    """Configuration and log of the process ``name``; ``argv`` is ``--config FILE``.

    From here on it keeps off the control process's cores; that goes there itself, once it has compiled everything.

    Raises:
        ConfigError: If the configuration cannot be read.
    """
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--config", type=Path, required=True, help="the run's JSON file")
    args, _ = parser.parse_known_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s {name} %(levelname)s %(message)s")
    log = logging.getLogger(name)
    run = config.read(args.config)
    if run.die_with_parent:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if name != "control":
        log.info("%s", realtime.keep(run.control_cores, inside=False))
    return run, log


def main(
    name: str, serve: Callable[[config.RunConfig, Stopping, logging.Logger], None], argv: Sequence[str] | None
) -> int:
    """Run the process ``name`` until SIGTERM or SIGINT; exit status 2, and its reason in the log, if it is refused."""
    stopping = Stopping()
    try:
        run, log = begin(name, argv)
        serve(run, stopping, log)
    except PalmarError as error:
        logging.getLogger(name).error("%s: %s", type(error).__name__, error)
        return 2
    return 0


class Watch:
    """Sees local processes die, within one ``poll``, through pidfds."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._names: dict[int, str] = {}
        self._pids: dict[str, int] = {}

    def add(self, name: str, pid: int) -> bool:
        """Watch process ``pid`` as ``name``, replacing an older one; False if it is gone already."""
        self.remove(name)
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return False
        self._names[fd], self._pids[name] = name, pid
        self._poll.register(fd, select.POLLIN)
        return True

    def watching(self, name: str) -> int:
        """Process id watched as ``name``, 0 if none."""
        return self._pids.get(name, 0)

    def dead(self) -> list[str]:
        """Names of those that died since the last call; each is reported once."""
        names = [self._names[fd] for fd, _ in self._poll.poll(0)]
        for name in names:
            self.remove(name)
        return names

    def remove(self, name: str) -> None:
        """Stop watching ``name``."""
        for fd in [fd for fd, known in self._names.items() if known == name]:
            self._poll.unregister(fd)
            os.close(fd)
            del self._names[fd]
        self._pids.pop(name, None)
