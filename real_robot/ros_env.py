"""ROS 2 kept to this machine: its own domain, and nothing but UDP on the loopback device."""

from __future__ import annotations

import os
import random
from pathlib import Path

FASTDDS = """<?xml version="1.0" encoding="UTF-8"?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <transport_descriptors>
    <transport_descriptor>
      <transport_id>loopback</transport_id><type>UDPv4</type>
      <interfaceWhiteList><address>127.0.0.1</address></interfaceWhiteList>
    </transport_descriptor>
  </transport_descriptors>
  <participant profile_name="loopback" is_default_profile="true">
    <rtps>
      <userTransports><transport_id>loopback</transport_id></userTransports>
      <useBuiltinTransports>false</useBuiltinTransports>
    </rtps>
  </participant>
</profiles>
"""
CYCLONE = (
    '<General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>'
    "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    "<MaxAutoParticipantIndex>30</MaxAutoParticipantIndex>"
    '<Peers><Peer address="127.0.0.1"/></Peers></Discovery>'
)
"""The same for Cyclone DDS; both find each other."""


def random_domain() -> int:
    """A ROS domain that another run is unlikely to use; 1 to 100 keep clear of the ephemeral ports."""
    return random.SystemRandom().randint(1, 100)


def isolated(domain: int, folder: Path) -> dict[str, str]:
    """Environment for ROS processes of one run on this machine; the profile is written to ``folder``."""
    profile = folder / "fastdds.xml"
    profile.write_text(FASTDDS)
    return {
        **{k: v for k, v in os.environ.items() if k != "ROS_LOCALHOST_ONLY"},
        "ROS_DOMAIN_ID": str(domain),
        # LOCALHOST would make rmw_fastrtps add shared memory and UDP sockets on every device to the profile
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(profile),
        "FASTDDS_DEFAULT_PROFILES_FILE": str(profile),
        "CYCLONEDDS_URI": CYCLONE,
        "ROS_LOG_DIR": str(folder / "ros_log"),
    }


def missing() -> str:
    """Why ROS 2 cannot be used here, '' if it can."""
    try:
        import rclpy  # noqa: F401
        import trajectory_msgs.msg  # noqa: F401
    except ImportError as error:
        return f"{error}: source a ROS 2 distribution or install the extra: pip install 'palmar[ros]'"
    return ""
