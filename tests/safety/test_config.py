"""The strict loader: what it takes, and what each refusal says."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmar.safety import config
from palmar.safety.types import ConfigError


@dataclass(frozen=True)
class Gripper:
    """A nested node."""

    force: float = 10.0
    fingers: int = 4
    span: tuple[float, float] = (0.0, 0.1)

    def __post_init__(self):
        if self.force <= 0:
            raise ValueError(f"force must be positive, got {self.force}")


@dataclass(frozen=True)
class Setup:
    """One field of every kind."""

    name: str
    mode: Literal["enforce", "shadow"] = "enforce"
    on: bool = True
    limit: float | None = None
    blocks: tuple[str, ...] = ()
    grippers: tuple[Gripper, ...] = ()
    gripper: Gripper = field(default_factory=Gripper)
    weights: dict[str, float] = field(default_factory=dict)
    path: Path = Path("runs")
    anything: Any = None


def test_nested_values_arrive_typed():
    got = config.load(
        Setup,
        {
            "name": "a",
            "limit": 3,
            "blocks": ["x", "y"],
            "grippers": [{"force": 1}, {}],
            "gripper": {"span": [1, 2]},
            "weights": {"lift": 2},
            "path": "here",
        },
    )
    assert got == Setup(
        name="a",
        limit=3.0,
        blocks=("x", "y"),
        grippers=(Gripper(force=1.0), Gripper()),
        gripper=Gripper(span=(1.0, 2.0)),
        weights={"lift": 2.0},
        path=Path("here"),
    )
    assert isinstance(got.limit, float) and isinstance(got.grippers[0].force, float)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"nam": "a"}, "unknown key 'nam', did you mean 'name'? accepted: name, mode"),
        ({}, "missing ['name']"),
        ([], "need a mapping with keys ['name'"),
        ({"name": 3}, "Setup.name is 3, need str"),
        ({"name": "a", "mode": "watch"}, "Setup.mode is 'watch', accepted ['enforce', 'shadow']"),
        ({"name": "a", "on": 1}, "Setup.on is 1, need bool"),
        ({"name": "a", "on": "true"}, "need bool"),
        ({"name": "a", "limit": True}, "Setup.limit is True, need a number"),
        ({"name": "a", "limit": float("nan")}, "Setup.limit is nan, need a number"),
        ({"name": "a", "blocks": "xy"}, "Setup.blocks is 'xy', need a list"),
        ({"name": "a", "blocks": ["x", 1]}, "Setup.blocks[1] is 1, need str"),
        ({"name": "a", "gripper": {"force": 0}}, "Setup.gripper: force must be positive, got 0.0"),
        ({"name": "a", "gripper": {"forse": 1}}, "Setup.gripper: unknown key 'forse', did you mean 'force'?"),
        ({"name": "a", "gripper": {"span": [1]}}, "Setup.gripper.span has 1 values, need 2"),
        ({"name": "a", "gripper": {"fingers": 2.0}}, "Setup.gripper.fingers is 2.0, need int"),
        ({"name": "a", "gripper": None}, "Setup.gripper is None, need a mapping"),
        ({"name": "a", "grippers": [{}, {"force": -1}]}, "Setup.grippers[1]: force must be positive"),
        ({"name": "a", "weights": {"lift": "2"}}, "Setup.weights.lift is '2', need a number"),
        ({"name": "a", "path": 3}, "Setup.path is 3, need Path"),
    ],
)
def test_a_refusal_names_the_place_the_value_and_what_is_accepted(raw, said):
    with pytest.raises(ConfigError) as refused:
        config.load(Setup, raw)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


number = st.floats(1e-6, 1e6)


@given(
    st.builds(
        Setup,
        name=st.text(),
        mode=st.sampled_from(["enforce", "shadow"]),
        on=st.booleans(),
        limit=st.none() | number,
        blocks=st.lists(st.text()).map(tuple),
        grippers=st.lists(st.builds(Gripper, force=number, fingers=st.integers())).map(tuple),
        weights=st.dictionaries(st.text(), number),
    )
)
def test_whatever_is_stored_as_json_comes_back_equal(setup):
    assert config.load(Setup, json.loads(json.dumps(config.plain(setup)))) == setup
