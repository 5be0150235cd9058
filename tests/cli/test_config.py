"""From words on the command line to frozen dataclasses."""

import pytest
import yaml

from palmar.cli import wiring
from palmar.cli.config import GROUPS, choices, compose, folder, values
from palmar.real_robot.deploy import DeployConfig
from palmar.safety import config, constraints
from palmar.safety.config import plain
from palmar.safety.types import ConfigError
from palmar.sim.robots import load_robot


@pytest.mark.parametrize("group", [g for g in GROUPS if g != "robot"])
def test_every_file_of_every_group_makes_a_valid_setup(group):
    assert choices(group)
    for name in choices(group):
        parts = wiring.setup(compose([f"{group}={name}"]))
        assert parts.composed.choices[group] == name


def test_yaml_files_hold_plain_values_only():
    for path in folder().rglob("*.yaml"):
        text = path.read_text()
        assert "${" not in text and "_target_" not in text, path
        yaml.safe_load(text)


def test_a_value_on_the_command_line_beats_the_file_and_the_default():
    parts = wiring.setup(compose("algo.clip=0.11 task.mass=[0.1,0.15] task.tracker.noise=0 engine.threads=1".split()))
    assert parts.algo.clip == 0.11
    assert parts.task.config.mass == (0.1, 0.15)
    assert parts.task.config.tracker.noise == 0.0
    assert parts.engine.threads == 1


def test_a_key_that_the_file_leaves_out_can_be_set():
    assert "entropy" not in yaml.safe_load((folder() / "algo" / "ppo.yaml").read_text())
    assert wiring.setup(compose(["algo=ppo", "algo.entropy=0.01"])).algo.entropy == 0.01


def test_without_overrides_the_constraint_file_arrives_unchanged():
    robot = load_robot("fr3_leap")
    direct = constraints.load(folder() / "constraints" / "arm_hand.yaml", robot.limits)
    assert wiring.setup(compose([])).constraints.hash() == direct.hash()


def test_changing_one_limit_changes_the_hash():
    before = wiring.setup(compose([])).constraints
    after = wiring.setup(compose(["constraints.constraints.table_force.params.limit=4"])).constraints
    assert after["table_force"].params["limit"] == 4
    assert before.hash() != after.hash()


def test_what_is_resolved_can_be_asked_for_again():
    first = wiring.setup(compose(["task=reach", "algo.gamma=0.9"]))
    raw = plain(first.resolved())
    words = [f"{g}={n}" for g, n in raw["choices"].items()]
    words += [f"algo.{k}={yaml.safe_dump(v, default_flow_style=True).splitlines()[0]}" for k, v in raw["algo"].items()]
    again = wiring.setup(compose(words))
    assert plain(again.resolved())["algo"] == raw["algo"]
    assert again.constraints.hash() == first.constraints.hash()


def test_values_of_a_section_without_a_file_are_the_overrides():
    assert values("nowhere", ["twin.latency=2", "seed=1"], name="twin") == {"twin": {"latency": 2}, "seed": 1}
    with pytest.raises(ConfigError, match="not of the form key=value"):
        values("nowhere", ["seed"], name="twin")


def test_a_deployment_is_its_file_with_the_overrides():
    raw = values("deploy", ["timeout=3", "twin.tracker_dropout=0.3"], name="twin")
    made = config.load(DeployConfig, {"out": "x", **raw})
    assert (made.timeout, made.twin.tracker_dropout) == (3.0, 0.3)
    assert made.twin.watchdog == DeployConfig("x").twin.watchdog
    with pytest.raises(ConfigError, match="unknown key 'tracker_drop', did you mean 'tracker_dropout'"):
        config.load(DeployConfig, {"out": "x", **values("deploy", ["twin.tracker_drop=1"], name="twin")})


def test_composing_twice_in_one_process_is_independent():
    assert wiring.setup(compose(["algo.gamma=0.5"])).algo.gamma == 0.5
    assert wiring.setup(compose([])).algo.gamma != 0.5
