"""A policy and an object tracker in pure Cyclone DDS, no ROS: ``python cyclone_policy.py DOMAIN JOINT_OFFSET``.

Reads rt/joint_states, answers each with a chunk on rt/palmar/chunk that lies by the offset beside it, and publishes a
pose on rt/objects/red/pose.  Message types are written out here, as a foreign program would.
"""

import sys
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final
from cyclonedds.idl.types import float64, int32, sequence, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration


@dataclass
@final
class Time(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
    sec: int32
    nanosec: uint32


@dataclass
@final
class Duration(IdlStruct, typename="builtin_interfaces.msg.dds_.Duration_"):
    sec: int32
    nanosec: uint32


@dataclass
@final
class Header(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
    stamp: Time
    frame_id: str


@dataclass
@final
class JointState(IdlStruct, typename="sensor_msgs.msg.dds_.JointState_"):
    header: Header
    name: sequence[str]
    position: sequence[float64]
    velocity: sequence[float64]
    effort: sequence[float64]


@dataclass
@final
class Point(IdlStruct, typename="trajectory_msgs.msg.dds_.JointTrajectoryPoint_"):
    positions: sequence[float64]
    velocities: sequence[float64]
    accelerations: sequence[float64]
    effort: sequence[float64]
    time_from_start: Duration


@dataclass
@final
class Trajectory(IdlStruct, typename="trajectory_msgs.msg.dds_.JointTrajectory_"):
    header: Header
    joint_names: sequence[str]
    points: sequence[Point]


@dataclass
@final
class Vector(IdlStruct, typename="geometry_msgs.msg.dds_.Point_"):
    x: float64
    y: float64
    z: float64


@dataclass
@final
class Quaternion(IdlStruct, typename="geometry_msgs.msg.dds_.Quaternion_"):
    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
@final
class Pose(IdlStruct, typename="geometry_msgs.msg.dds_.Pose_"):
    position: Vector
    orientation: Quaternion


@dataclass
@final
class PoseStamped(IdlStruct, typename="geometry_msgs.msg.dds_.PoseStamped_"):
    header: Header
    pose: Pose


def now() -> Time:
    """The wall clock, as ROS stamps messages."""
    return Time(*divmod(time.time_ns(), 10**9))


def answer(state: JointState, offset: float) -> Trajectory:
    """Two points beside a joint state; the columns in reverse order, for names decide."""
    names, q = list(reversed(state.name)), [x + offset for x in reversed(state.position)]
    points = [Point(q, [], [], [], Duration(0, 100_000_000 * k)) for k in (1, 2)]
    return Trajectory(Header(state.header.stamp, ""), names, points)


def main(domain: int, offset: float) -> None:
    """Talk until killed."""
    participant = DomainParticipant(domain)
    seen = Qos(Policy.Reliability.BestEffort, Policy.Durability.Volatile, Policy.History.KeepLast(1))
    sure = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.Durability.Volatile, Policy.History.KeepLast(1))
    states = DataReader(participant, Topic(participant, "rt/joint_states", JointState), qos=seen)
    chunks = DataWriter(participant, Topic(participant, "rt/palmar/chunk", Trajectory), qos=sure)
    poses = DataWriter(participant, Topic(participant, "rt/objects/red/pose", PoseStamped), qos=sure)
    while True:
        for state in states.take(N=1):
            chunks.write(answer(state, offset))
            pose = Pose(Vector(0.5, -0.1, 0.03), Quaternion(0.0, 0.0, 0.6, 0.8))
            poses.write(PoseStamped(Header(now(), "world"), pose))
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
