"""The ``palmar`` command: finds the verb, runs it, turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from palmar.safety.config import unknown
from palmar.safety.types import PalmarError

VERBS = {
    "doctor": "check this machine, and print the fix for whatever is missing",
    "envs": "list the tasks: what is asked, which constraints cost, what exists",
    "train": "train a constrained policy in simulation",
    "eval": "measure a policy over unseen episodes: success, forces, every cost",
    "deploy": "run a policy on the robot or its twin, behind the 1 kHz filter",
    "monitor": "watch the control process of this machine, stop it, reset it",
    "rehearse": "let everything go wrong that may in a session, on the twin or the drivers' fakes",
    "replay": "simulate a recorded run again and say where it first departs",
    "filter": "say why the filter changed a command, or what it would do to recorded runs",
    "inspect": "turn recorded runs into one HTML page, or open them in Rerun",
    "bench": "measure the simulator, the filter, a deployment or the shipped policies",
    "demo": "all of it once: train, deploy, record, replay, report",
}

DONE, SAID_NO, REFUSED, BUG, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes; SAID_NO is a verb that ran and found a fault: doctor, eval, replay, deploy."""

CODES = """exit codes: 0 done; 1 the answer is no (a check failed, a replay departed, a run was stopped);
  2 refused (wrong words, files or values: one line says which are accepted); 3 a bug in Palmar; 130 Ctrl-C"""

MISSING = {
    "rclpy": "source a ROS 2 distribution, or: pip install 'palmar[ros]' (see palmar doctor)",
    "rerun": "pip install 'palmar[viewer]'",
    "mujoco_warp": "pip install 'palmar[gpu]'",
    "pylibfranka": "pip install 'palmar[franka]'",
    "dynamixel_sdk": "pip install 'palmar[hands]'",
    "can": "pip install 'palmar[hands]'",
    "pyrealsense2": "pip install 'palmar[realsense]'",
}
"""Optional modules and how to get them."""


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are one line and name what is accepted."""

    def error(self, message: str) -> NoReturn:
        """Refuse.

        Raises:
            PalmarError: Always.
        """
        raise PalmarError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        code = _run([w for w in words if w != "--debug"])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\npalmar: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # palmar envs | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except PalmarError as error:
        return _say(str(error), debug)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in MISSING:
            return _say(f"{error}: {MISSING[str(error.name).split('.')[0]]}", debug)
        raise
    except SystemExit as ending:  # argparse after --help or --version
        return int(ending.code or 0)
    except Exception:
        traceback.print_exc()
        print("palmar: this is a bug in Palmar, not in what you asked for", file=sys.stderr)
        return BUG


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return DONE
    if words[0] in ("-V", "--version"):
        print(f"palmar {version('palmar')}")
        return DONE
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        raise PalmarError(unknown("verb", verb, VERBS))
    module = importlib.import_module(f"palmar.cli.{verb}")
    parser = Parser(
        prog=f"palmar {verb}",
        description=f"{VERBS[verb]}\n\n{module.ABOUT.strip()}",
        epilog=f"examples:\n{_indented(module.EXAMPLES)}\n\n{CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    args, strange = parser.parse_known_args(rest)
    if strange:
        options = [o for action in parser._actions for o in action.option_strings if o.startswith("--")]
        raise PalmarError(f"{verb}: {unknown('argument', strange[0], options)}")
    return module.run(args)


def overview() -> str:
    """The page of ``palmar --help``."""
    verbs = "\n".join(f"  {name:<9}{told}" for name, told in VERBS.items())
    return f"""usage: palmar VERB ...      palmar VERB --help teaches one verb      palmar --version

Palmar takes a sentence to a safe arm-hand motion: train a policy in simulation under the
constraints of one file, deploy it behind a 1 kHz filter that enforces the same file, and
replay and inspect what happened.  It is not safety-rated.

verbs:
{verbs}

first steps:
  palmar doctor                                  is this machine ready?
  palmar demo --out demo_out                     the whole way in five minutes
  palmar train task=lift algo=ppo_lagrangian     your own policy, into runs/

{CODES}"""


def _say(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print("palmar: " + " ".join(message.split()), file=sys.stderr)
    return REFUSED


def _indented(text: str) -> str:
    return "\n".join("  " + line.strip() for line in text.strip().splitlines())


if __name__ == "__main__":
    sys.exit(main())
