"""The URDF of a Palmar robot on the standard output: ``ros2 run palmar_description describe fr3_leap``."""

from __future__ import annotations


def main() -> int:
    """See ``palmar.sim.urdf``; arm and hand of one's own choice are ``urdf/palmar.urdf.xacro``'s arguments."""
    from palmar.sim import urdf

    return urdf.main()
