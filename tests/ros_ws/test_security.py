"""The SROS 2 policy and the parameter file against the nodes they speak about.

What sros2 and openssl make of the policy was run once outside (docs/ros2.md): the wheels' Fast DDS has no security.
"""

import re
import xml.etree.ElementTree as ET
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from palmar.real_robot import ros_env

BRINGUP = Path(__file__).resolve().parents[2] / "ros_ws" / "src" / "palmar_bringup"
POLICY = ET.parse(BRINGUP / "security" / "policy.xml", ET.XMLParser(target=ET.TreeBuilder(insert_comments=True)))
PARAMETERS = BRINGUP / "config" / "deploy.yaml"
LISTS = {"topics": ("publish", "subscribe"), "services": ("reply", "request")}
ENCLAVES = {e.get("path") for e in POLICY.getroot().iter("enclave")}


def allowed(namespace=""):
    """Expressions that each enclave may use, by what it may do, as sros2 expands them for a robot in a namespace."""
    found = {}
    for enclave in POLICY.getroot().iter("enclave"):
        rights = found.setdefault(enclave.get("path"), {"publish": [], "subscribe": [], "reply": [], "request": []})
        for profile in enclave.iter("profile"):
            assert profile.get("ns") == "/"
            for kind, doings in LISTS.items():
                for block in profile.findall(kind):
                    names = [full(e.text, namespace, profile.get("node")) for e in block]
                    for doing in doings:
                        assert block.get(doing) in (None, "ALLOW")
                        rights[doing] += names if block.get(doing) else []
    return found


def full(name, namespace, node):
    if name.startswith("/"):
        return name
    if name.startswith("~"):
        return f"{namespace}/{node}{name[1:]}"
    return f"{namespace}/{name}"


def may(doing, name, namespace=""):
    """Enclaves that may do this."""
    rights = allowed(namespace)
    return {path for path, r in rights.items() if any(fnmatchcase(name, pattern) for pattern in r[doing])}


@pytest.mark.parametrize("namespace", ["", "/left"])
def test_only_the_policy_commands_and_only_operators_stop_and_reset(namespace):
    assert may("publish", f"{namespace}/palmar/chunk", namespace) == {"/palmar/policy"}
    assert may("publish", f"{namespace}/palmar/executed", namespace) == {"/palmar/bridge"}
    assert may("publish", f"{namespace}/joint_states", namespace) == {"/palmar/bridge"}
    assert may("publish", f"{namespace}/palmar/people", namespace) == {"/palmar/tracker"}
    for service in ("stop", "reset", "estop", "release", "set_parameters"):
        assert may("request", f"{namespace}/palmar_bridge/{service}", namespace) == {"/palmar/operator"}
    for node in ("palmar_bridge", "palmar_policy"):
        changers = may("request", f"{namespace}/{node}/change_state", namespace)
        assert changers == {"/palmar/operator", "/palmar/launch"}


def test_a_robot_in_another_namespace_is_out_of_reach():
    assert may("publish", "/right/palmar/chunk", "/left") == set()
    assert may("request", "/right/palmar_bridge/reset", "/left") == set()


def test_sros2_reads_every_child_of_enclaves_as_one():
    assert {child.tag for child in POLICY.getroot().find("enclaves")} == {"enclave"}
    assert POLICY.getroot().get("version") == "0.2.0"


def test_every_enclave_that_the_launch_files_name_has_rights():
    source = (BRINGUP / "palmar_bringup" / "graph.py").read_text()
    assert re.findall(r'"--enclave", f?"/palmar/(\w+|\{\w+\})"', source)
    for name in ("bridge", "policy", "images", "device", "state_publisher", "launch", "operator", "tracker"):
        assert f"/palmar/{name}" in ENCLAVES


def over_ros(test):
    there = pytest.mark.skipif(bool(ros_env.missing()), reason=ros_env.missing() or "rclpy is here")
    return pytest.mark.ros(there(test))


@pytest.fixture(scope="module")
def r(tmp_path_factory):
    from ros_seat import ros

    with ros(tmp_path_factory.mktemp("ros")) as made:
        yield made


@pytest.fixture
def nodes(r, tmp_path):
    """Bridge, policy and cameras of a robot in a namespace, configured; by enclave."""
    from rclpy.lifecycle import TransitionCallbackReturn
    from ros_seat import seat

    from palmar.real_robot.nodes.bridge import Bridge
    from palmar.real_robot.nodes.images import ImagesNode
    from palmar.real_robot.nodes.policy import PolicyNode

    with seat(r, tmp_path, namespace="/left", objects=("red",), hardware="real", devices=devices()) as s:
        made = {
            "/palmar/bridge": r.add(Bridge(s.run, context=r.context)),
            "/palmar/policy": r.add(PolicyNode(s.run, context=r.context)),
            "/palmar/images": r.add(ImagesNode(s.run, opened=lambda node: NoCamera(), context=r.context)),
        }
        for node in made.values():
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        r.spin(0.2)
        yield made
        for node in made.values():
            node.trigger_shutdown()
            r.drop(node)


class NoCamera:
    """A source of one camera that never has a picture."""

    pinholes = {"wrist": None}

    def look(self):
        return ()

    def close(self):
        pass


def devices():
    from palmar.real_robot.config import DeviceConfig

    return (DeviceConfig(name="arm", driver="fr3", joints=("shoulder", "elbow"), memory="/dev/shm/nowhere"),)


@over_ros
def test_the_nodes_use_nothing_that_the_policy_does_not_allow(r, nodes):
    asked = {
        "publish": "get_publisher_names_and_types_by_node",
        "subscribe": "get_subscriber_names_and_types_by_node",
        "reply": "get_service_names_and_types_by_node",
        "request": "get_client_names_and_types_by_node",
    }
    seen = 0
    for enclave, node in nodes.items():
        for doing, ask in asked.items():
            for name, _ in getattr(node, ask)(node.get_name(), node.get_namespace()):
                seen += 1
                assert enclave in may(doing, name, "/left"), f"{enclave} may not {doing} {name}"
    assert seen > 40


@over_ros
@pytest.mark.parametrize("namespace", ["", "/left"])
def test_the_parameter_file_reaches_every_node_and_names_only_its_parameters(r, tmp_path, namespace):
    import rclpy
    from toy_robot import run_config

    from palmar.real_robot.nodes.bridge import Bridge
    from palmar.real_robot.nodes.images import ImagesNode
    from palmar.real_robot.nodes.policy import PolicyNode

    run = run_config(tmp_path, namespace=namespace)
    made = {"palmar_bridge": Bridge, "palmar_policy": PolicyNode, "palmar_images": ImagesNode}
    given = {
        key.split("/")[-1]: value["ros__parameters"] for key, value in yaml.safe_load(PARAMETERS.read_text()).items()
    }
    assert set(given) == set(made)
    for name, make in made.items():
        changed = tmp_path / f"{name}.yaml"
        values = {k: v * 0.9 if isinstance(v, float) else v for k, v in given[name].items()}
        changed.write_text(yaml.safe_dump({f"/**/{name}": {"ros__parameters": values}}))
        context = rclpy.Context()
        rclpy.init(args=["--ros-args", "--params-file", str(changed)], context=context, domain_id=r.domain)
        try:
            node = make(run, context=context)
            assert {k: node.get_parameter(k).value for k in values} == values
            node.destroy_node()
        finally:
            rclpy.shutdown(context=context)


@over_ros
def test_a_parameter_out_of_its_range_keeps_the_node_from_starting(r, tmp_path):
    import rclpy
    from toy_robot import run_config

    from palmar.real_robot.nodes.bridge import Bridge

    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"/**/palmar_bridge": {"ros__parameters": {"horizon": 60.0}}}))
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context, domain_id=r.domain)
    try:
        with pytest.raises(Exception, match="horizon"):
            Bridge(run_config(tmp_path), context=context)
    finally:
        rclpy.shutdown(context=context)
