"""``python -m palmar.real_robot.fakes.hand leap``: a fake hand on a port of its own, joints that move by themselves.

It prints the settings of the driver that reaches it and serves until its input ends; a line of JSON on the input
hurts it, ``{"do": "raise_fault", "args": ["overload"]}``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from palmar.real_robot.fakes import allegro, leap
from palmar.safety.types import ConfigError

HANDS = {"leap": leap.alone, "allegro": allegro.alone}


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the fake hand that is named."""
    parser = argparse.ArgumentParser(prog="hand", description=__doc__, allow_abbrev=False)
    parser.add_argument("hand", choices=sorted(HANDS))
    parser.add_argument("--link", type=Path, help="keep a symbolic link to the port here")
    asked = parser.parse_args(argv)
    with ExitStack() as stack:
        fake, settings = HANDS[asked.hand](stack, asked.link)
        print(json.dumps({"driver": asked.hand, **settings}), flush=True)
        try:
            for line in sys.stdin:
                try:
                    fake.order(line)
                except ConfigError as error:
                    print(error, file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
