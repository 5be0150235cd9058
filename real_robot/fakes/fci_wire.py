"""The bytes of Franka's control interface (FCI), version 10: what libfranka 0.20 and 0.21 speak.

Source: the structs of frankarobotics/libfranka-common (Apache-2.0), ``research_interface/robot``; packed,
little-endian.  TCP carries commands and their responses, UDP the state of every millisecond and its answer.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

VERSION = 10
PORT = 1337
"""TCP; libfranka knows no other."""
HEADER = struct.Struct("<3I")
"""Command, its id, size of the whole message."""
CONNECT, MOVE, STOP_MOVE, SET_COLLISION, SET_IMPEDANCE = range(5)
SET_LOAD, RECOVER, GET_MODEL = 9, 10, 11
REQUEST_SIZE = {
    CONNECT: 4, MOVE: 113, STOP_MOVE: 0, SET_COLLISION: 416, SET_IMPEDANCE: 56, 5: 48, 6: 7, 7: 128, 8: 128,
    SET_LOAD: 104, RECOVER: 0, GET_MODEL: 0,
}  # fmt: skip
"""Bytes after the header."""

SUCCESS, INCOMPATIBLE, NOT_POSSIBLE, INVALID = 0, 1, 1, 2
"""Statuses of plain commands and setters."""
MOVE_STARTED, MOVE_PREEMPTED, MOVE_NOT_POSSIBLE, MOVE_INVALID, MOVE_REFLEX, MOVE_EMERGENCY = 1, 2, 5, 7, 8, 9
RECOVER_NOT_POSSIBLE, RECOVER_EMERGENCY = 1, 5

OTHER, IDLE, MOVING, GUIDING, REFLEX, USER_STOPPED, RECOVERING = range(7)
"""Robot modes."""
GENERATOR_IDLE, GENERATOR_JOINT_POSITION = 0, 1
CONTROLLER_JOINT_IMPEDANCE, CONTROLLER_CARTESIAN_IMPEDANCE, CONTROLLER_OTHER = 0, 1, 3

ERRORS = (
    "joint_position_limits_violation", "cartesian_position_limits_violation", "self_collision_avoidance_violation",
    "joint_velocity_violation", "cartesian_velocity_violation", "force_control_safety_violation", "joint_reflex",
    "cartesian_reflex", "max_goal_pose_deviation_violation", "max_path_pose_deviation_violation",
    "cartesian_velocity_profile_safety_violation", "joint_position_motion_generator_start_pose_invalid",
    "joint_motion_generator_position_limits_violation", "joint_motion_generator_velocity_limits_violation",
    "joint_motion_generator_velocity_discontinuity", "joint_motion_generator_acceleration_discontinuity",
    "cartesian_position_motion_generator_start_pose_invalid", "cartesian_motion_generator_elbow_limit_violation",
    "cartesian_motion_generator_velocity_limits_violation", "cartesian_motion_generator_velocity_discontinuity",
    "cartesian_motion_generator_acceleration_discontinuity", "cartesian_motion_generator_elbow_sign_inconsistent",
    "cartesian_motion_generator_start_elbow_invalid", "force_controller_desired_force_tolerance_violation",
    "start_elbow_sign_inconsistent", "communication_constraints_violation", "power_limit_violation",
    "cartesian_motion_generator_joint_position_limits_violation",
    "cartesian_motion_generator_joint_velocity_limits_violation",
    "cartesian_motion_generator_joint_velocity_discontinuity",
    "cartesian_motion_generator_joint_acceleration_discontinuity", "cartesian_position_motion_generator_invalid_frame",
    "controller_torque_discontinuity", "joint_p2p_insufficient_torque_for_planning", "tau_J_range_violation",
    "instability_detected", "joint_move_in_wrong_direction", "cartesian_spline_motion_generator_violation",
    "joint_via_motion_generator_planning_joint_limit_violation", "base_acceleration_initialization_timeout",
    "base_acceleration_invalid_reading",
)  # fmt: skip
"""In the order of the flags on the wire."""


def _floats(*fields: tuple[str, int]) -> list[Any]:
    return [(name, "<f4", (size,)) for name, size in fields]


STATE = np.dtype(
    [
        ("message_id", "<u8"),
        *_floats(("O_T_EE", 16), ("O_T_EE_d", 16), ("F_T_EE", 16), ("EE_T_K", 16), ("F_T_NE", 16), ("NE_T_EE", 16)),
        ("m_ee", "<f4"),
        *_floats(("I_ee", 9), ("F_x_Cee", 3)),
        ("m_load", "<f4"),
        *_floats(("I_load", 9), ("F_x_Cload", 3), ("elbow", 2), ("elbow_d", 2)),
        *_floats(*((n, 7) for n in ("tau_J", "tau_J_d", "dtau_J", "q", "q_d", "dq", "dq_d", "ddq_d", "joint_contact"))),
        *_floats(("cartesian_contact", 6), ("joint_collision", 7), ("cartesian_collision", 6)),
        *_floats(("tau_ext_hat_filtered", 7), ("O_F_ext_hat_K", 6), ("K_F_ext_hat_K", 6), ("O_dP_EE_d", 6)),
        *_floats(("O_ddP_O", 3), ("elbow_c", 2), ("delbow_c", 2), ("ddelbow_c", 2), ("O_T_EE_c", 16)),
        *_floats(("O_dP_EE_c", 6), ("O_ddP_EE_c", 6), ("theta", 7), ("dtheta", 7)),
        *_floats(("accelerometer_top", 18), ("accelerometer_bottom", 18)),
        ("motion_generator_mode", "u1"),
        ("controller_mode", "u1"),
        ("errors", "u1", (len(ERRORS),)),
        ("reflex_reason", "u1", (len(ERRORS),)),
        ("robot_mode", "u1"),
        ("control_command_success_rate", "<f4"),
    ]
)
"""What the robot sends every millisecond, 1,377 bytes."""

COMMAND = np.dtype(
    [
        ("message_id", "<u8"),
        ("q_c", "<f8", (7,)),
        ("dq_c", "<f8", (7,)),
        ("O_T_EE_c", "<f8", (16,)),
        ("O_dP_EE_c", "<f8", (6,)),
        ("elbow_c", "<f8", (2,)),
        ("valid_elbow", "u1"),
        ("motion_generation_finished", "u1"),
        ("tau_J_d", "<f8", (7,)),
        ("torque_command_finished", "u1"),
    ]
)
"""What it wants back; ``message_id`` is that of the state it answers."""


def response(command: int, command_id: int, status: int, payload: bytes = b"") -> bytes:
    """A whole TCP message from the robot."""
    return HEADER.pack(command, command_id, HEADER.size + 1 + len(payload)) + bytes([status]) + payload


def request(command: int, command_id: int, payload: bytes = b"") -> bytes:
    """A whole TCP message to the robot."""
    return HEADER.pack(command, command_id, HEADER.size + len(payload)) + payload


def urdf(name: str, low: Any, high: Any, v_max: Any, offset: Any, deceleration: Any, effort: Any) -> str:
    """The part of a robot's URDF that libfranka and the identity check read: seven joints and their limits.

    No masses: the fake's world has no gravity, and its state says so (``O_ddP_O`` is zero).
    """
    joints = [
        f'<joint name="{name}_joint{i + 1}" type="revolute"><parent link="link{i}"/><child link="link{i + 1}"/>'
        f'<axis xyz="0 0 1"/><limit effort="{effort[i]}" lower="{low[i]}" upper="{high[i]}" velocity="{v_max[i]}"/>'
        f'<position_based_velocity_limits deceleration_limit="{deceleration[i]}" velocity_offset="{offset[i]}"/>'
        "</joint>"
        for i in range(7)
    ]
    joints.append('<joint name="joint8" type="fixed"><parent link="link7"/><child link="link8"/></joint>')
    links = [f'<link name="link{i}"/>' for i in range(9)]
    return f'<?xml version="1.0"?><robot name="{name}">{"".join(links + joints)}</robot>'
