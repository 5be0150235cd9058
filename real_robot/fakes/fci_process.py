"""The fake Franka arm as a process of its own: ``python -m palmar.real_robot.fakes.fci_process --address 127.0.0.2``.

Lines of JSON on its standard input hurt it (``{"do": "drop", "args": [19]}``) or ask it (``{"do": "report"}``); each
is answered by one line.  ``FciProcess`` is the other end of that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from palmar.real_robot import realtime
from palmar.real_robot.fakes import fci_wire as wire
from palmar.real_robot.fakes.fci import Fci
from palmar.real_robot.fakes.fci_motion import DT, FR3, PANDA
from palmar.real_robot.fakes.plant import ServoPlant
from palmar.safety.types import ConfigError

HOME = (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)
"""Where the arm stands at first [rad]: libfranka's examples begin there."""
ARMS = {"fr3": FR3, "panda": PANDA}


def servo_plant(q: Sequence[float] = HOME) -> ServoPlant:
    """Joints as stiff as an arm's under its internal controller: 4,000 N m/rad at 0.1 kg m2, critically damped."""
    return ServoPlant(np.array(q), inertia=0.1, stiffness=4000.0, damping=40.0, tau_max=87.0)


class FciProcess:
    """A fake arm in a process of its own, to be hurt from here; a context manager."""

    def __init__(self, address: str, **options: Any):
        """Start it and wait until it listens; options are those of ``main``, e.g. ``patience=0.05``."""
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", __spec__.name, "--address", address, *words]
        self.address = address
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._line() != {"ready": True}:
            raise RuntimeError(f"no fake arm at {address}: exit {self.process.wait()}")

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def do(self, name: str, *args: Any, **named: Any) -> Any:
        """Hurt it, or ask for its ``report``."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": name, "args": args, "named": named}) + "\n")
        self.process.stdin.flush()
        answer = self._line()
        if answer is None or "error" in answer:
            raise RuntimeError(f"{name}: {answer}")
        return answer["answer"]

    def report(self) -> dict[str, Any]:
        """See ``Fci.report``."""
        return self.do("report")

    def close(self) -> None:
        """End it."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> FciProcess:
        """Itself, listening."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def serve(fci: Fci) -> None:
    """Answer the lines of standard input until it ends."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        try:
            print(json.dumps({"answer": fci.order(line)}), flush=True)
        except ConfigError as error:
            print(json.dumps({"error": str(error)}), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve a fake arm with joints of its own."""
    parser = argparse.ArgumentParser(prog="fci_process", description="A fake Franka arm.")
    parser.add_argument("--address", default="127.0.0.2", help="loopback address; the port is always 1337")
    parser.add_argument("--arm", choices=sorted(ARMS), default="fr3")
    parser.add_argument("--patience", type=float, default=DT, help="lateness that counts as loss [s]; a robot's: 0.001")
    parser.add_argument("--version", type=int, default=wire.VERSION, help="of the interface")
    parser.add_argument("--priority", type=int, default=0, help="real-time priority, 0 for none")
    args = parser.parse_args(argv)
    if args.priority:
        realtime.go_realtime(args.priority)
    realtime.freeze_collector()
    with Fci(servo_plant(), args.address, limits=ARMS[args.arm], patience=args.patience, version=args.version) as fci:
        serve(fci)
        time.sleep(DT)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
