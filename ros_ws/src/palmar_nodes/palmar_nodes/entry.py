"""Entry points: each runs a process of ``palmar.real_robot``, ``--after`` a part of the run is there.

What is imported is imported first: once the simulated robot, fakes and devices run at 1 kHz with real-time priority,
a small machine has little time left for that.
"""

from palmar_nodes.ready import after


def bridge() -> int:
    """The bridge node."""
    from palmar.real_robot.nodes import bridge as module

    return module.main()


def policy() -> int:
    """The policy node."""
    from palmar.real_robot.nodes import policy as module

    return module.main()


def control() -> int:
    """The control process; no ROS in it."""
    from palmar.real_robot import control as module

    return after(module.main)


def twin() -> int:
    """The simulated hardware; no ROS in it."""
    from palmar.real_robot import twin as module

    return module.main()


def device() -> int:
    """The driver of an arm or a hand; no ROS in it."""
    from palmar.real_robot import device as module

    return after(module.main)


def fakes() -> int:
    """Byte-level fakes of the hardware, for real drivers without a robot; no ROS in it."""
    from palmar.real_robot.fakes import serve as module

    return after(module.main)


def images() -> int:
    """The cameras node."""
    from palmar.real_robot.nodes import images as module

    return module.main()


def replay() -> int:
    """The replay node: a rollout in place of a policy."""
    from palmar.real_robot.nodes import replay as module

    return module.main()


def recorder() -> int:
    """The recorder; no ROS in it."""
    from palmar.real_robot import recorder as module

    return after(module.main)
