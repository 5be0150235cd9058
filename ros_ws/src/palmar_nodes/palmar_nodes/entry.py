"""Entry points: each runs a process of ``palmar.real_robot`` and nothing else."""


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

    return module.main()


def twin() -> int:
    """The simulated hardware; no ROS in it."""
    from palmar.real_robot import twin as module

    return module.main()


def recorder() -> int:
    """The recorder; no ROS in it."""
    from palmar.real_robot import recorder as module

    return module.main()
