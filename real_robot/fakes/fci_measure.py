"""How fast the FR3 driver is here: ``python -m palmar.real_robot.fakes.fci_measure`` against the fake arm on loopback.

The fake is as strict as a robot: an answer later than 1 ms is a lost packet.  The arm swings by 0.2 rad all the while.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence

import numpy as np

from palmar.real_robot import realtime
from palmar.real_robot.drivers.error import DriverError
from palmar.real_robot.drivers.fr3 import open_driver
from palmar.real_robot.drivers.fr3_config import Fr3Config
from palmar.real_robot.fakes.fci_process import FciProcess
from palmar.safety.types import Command

JOINTS = tuple(f"fr3_joint{i}" for i in range(1, 8))


def measure(address: str, *, cycles: int, priority: int) -> dict[str, object]:
    """Swing for ``cycles`` packets; times in us, ``reaction`` from reading a packet to sending its answer."""
    with FciProcess(address, patience=0.001, priority=priority + 5 if priority else 0) as fake:
        driver = open_driver(Fr3Config(address=address), JOINTS)
        granted = realtime.go_realtime(priority) if priority else "no real-time priority asked for"
        realtime.freeze_collector()
        before, start, faults = fake.report(), driver.read().q, []
        reaction, period = np.zeros(cycles), np.zeros(cycles)
        cpu, began, last = time.process_time(), time.monotonic(), time.monotonic()
        for k in range(cycles):
            q = start + 0.1 * (1.0 - np.cos(2e-3 * k)) * np.eye(7)[1]
            try:
                driver.write(Command(q=q, seq=k, stamp=last))
                reaction[k] = time.monotonic() - last
                now = driver.read().t
            except DriverError as error:
                faults.append({"cycle": k, "error": str(error)})
                break
            period[k], last = now - last, now
        wall, cpu, after = time.monotonic() - began, time.process_time() - cpu, fake.report()
        driver.close()
    done = slice(1, k + 1 - len(faults))
    return {
        "cycles": k + 1,
        "priority": granted,
        "reaction_us": _spread(reaction[done]),
        "period_us": _spread(period[done]),
        "lost_packets": after["lost"] - before["lost"],
        "late_packets": after["late"] - before["late"],
        "fake_slipped_ms": after["slipped"] - before["slipped"],
        "resumed": driver.resumed,
        "stopped_by": faults,
        "cpu_share_driver": round(cpu / wall, 3),
        "load": os.getloadavg()[0],
    }


def _spread(seconds: np.ndarray) -> dict[str, float]:
    p50, p99, p999 = np.percentile(1e6 * seconds, (50, 99, 99.9)).round(1).tolist()
    return {"p50": p50, "p99": p99, "p99.9": p999, "max": round(1e6 * float(seconds.max()), 1)}


def main(argv: Sequence[str] | None = None) -> int:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(prog="fci_measure", description="The FR3 driver's cycle against the fake arm.")
    parser.add_argument("--address", default="127.0.0.3")
    parser.add_argument("--cycles", type=int, default=20_000)
    parser.add_argument("--priority", type=int, default=0, help="real-time priority of the driver, 0 for none")
    args = parser.parse_args(argv)
    print(json.dumps(measure(args.address, cycles=args.cycles, priority=args.priority), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
