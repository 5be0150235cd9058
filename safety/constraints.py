"""The constraint file: named requirements over ``safety.margins``, written once for four uses."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from palmar.safety import margins
from palmar.safety.namespace import namespace
from palmar.safety.robot import Limits
from palmar.safety.types import Array, ConfigError, Measurement

SIGNALS = ("state", "transition", "contact", "event")
SOURCES = ("measured", "estimated", "simulation only")
RUNTIMES = ("hard row", "soft row", "reflex", "monitor", "none")
UNITS = ("s", "events")
HARD_ROWS = frozenset({
    "joint_position", "joint_velocity", "joint_acceleration", "joint_jerk", "self_clearance", "table_clearance",
    "workspace", "keep_out", "speed_separation", "energy_tank",
})  # fmt: skip
"""Margins that the filter keeps whatever is asked of it."""
SOFT_ROWS = frozenset({"joint_torque", "joint_torque_rate", "contact_approach"})
"""Margins that it keeps as far as the hard ones leave room.  All others can only be watched."""


@dataclass(frozen=True)
class Constraint:
    """One named requirement.  See the head of ``configs/constraints/arm_hand.yaml`` for the words."""

    name: str
    margin: str
    params: dict[str, Any]
    signal: str
    source: str
    memory: str
    runtime: str
    budget: float
    unit: str
    error: float = 0.0
    """Bound on the error of an estimated source, in the margin's unit."""

    def __post_init__(self) -> None:
        known = sorted([*margins.MEMORYLESS, *margins.REMEMBERING])
        _one_of(self.name, "margin", self.margin, known)
        _one_of(self.name, "signal", self.signal, SIGNALS)
        _one_of(self.name, "source", self.source, SOURCES)
        _one_of(self.name, "runtime", self.runtime, RUNTIMES)
        _one_of(self.name, "unit", self.unit, UNITS)
        if not (isinstance(self.budget, int | float) and 0 <= self.budget < float("inf")):
            raise ConfigError(f"constraint {self.name}: budget must be a finite number >= 0, got {self.budget!r}")
        self._check_row()
        if (self.memory == "none") == (self.margin in margins.REMEMBERING):
            raise ConfigError(f"constraint {self.name}: memory {self.memory!r} does not fit margin {self.margin}")
        function = margins.REMEMBERING[self.margin][1] if self.remembers else margins.MEMORYLESS[self.margin]
        accepted = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        if sorted(self.params) != sorted(accepted):
            raise ConfigError(f"constraint {self.name}: params {sorted(self.params)}, accepted {sorted(accepted)}")

    def _check_row(self) -> None:
        """Nothing may be called enforced that the filter does not enforce."""
        if not self.runtime.endswith("row"):
            return
        if self.source == "simulation only":
            raise ConfigError(
                f"constraint {self.name}: a {self.runtime} needs a source on the robot, got {self.source!r}"
            )
        rows = HARD_ROWS if self.runtime == "hard row" else HARD_ROWS | SOFT_ROWS
        if self.margin not in rows:
            raise ConfigError(
                f"constraint {self.name}: the filter has no {self.runtime} for margin {self.margin}, only for "
                f"{sorted(rows)}; accepted here: {[r for r in RUNTIMES if not r.endswith('row')]}"
                + (" and soft row" if self.margin in SOFT_ROWS else "")
            )

    @property
    def remembers(self) -> bool:
        """Whether the margin has a carry."""
        return self.margin in margins.REMEMBERING


@dataclass(frozen=True)
class Violation:
    """What an interval cost: the result of ``ConstraintSet.over``."""

    margin: Array
    """Smallest margin over the samples, (*B, K)."""
    cost: Array
    """Seconds violated or events, (*B, K)."""
    carry: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class ConstraintSet:
    """The constraints of a file, bound to a robot's limits."""

    name: str
    version: int
    constraints: tuple[Constraint, ...]
    limits: Limits

    @property
    def names(self) -> tuple[str, ...]:
        """Constraint names, the order of every K axis."""
        return tuple(c.name for c in self.constraints)

    def __getitem__(self, name: str) -> Constraint:
        for c in self.constraints:
            if c.name == name:
                return c
        raise ConfigError(f"no constraint {name!r}; there are {list(self.names)}")

    def select(self, names: tuple[str, ...]) -> ConstraintSet:
        """Only these, in this order."""
        return ConstraintSet(self.name, self.version, tuple(self[n] for n in names), self.limits)

    def hash(self) -> str:
        """SHA-256 of names, parameters, budgets and uses, hex; formatting of the file does not matter."""
        raw = {
            "name": self.name,
            "version": self.version,
            "constraints": [asdict(c) for c in self.constraints],
        }
        return hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()

    def start(self, m: Measurement) -> dict[str, Array]:
        """Carry at the start of an episode: per remembering constraint its memory, and whether it is violated."""
        carry: dict[str, Array] = {}
        for c in self.constraints:
            if c.remembers:
                carry[c.name] = margins.REMEMBERING[c.margin][0](m)
            if c.unit == "events":
                xp = namespace(m.t)
                carry[c.name + "/violated"] = xp.zeros_like(m.t)
        return carry

    def margins(self, m: Measurement, carry: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """Margins at one instant, (*B, K), and the new carry."""
        xp = namespace(m.q)
        carry, out = dict(carry), []
        for c in self.constraints:
            if c.remembers:
                value, carry[c.name] = margins.REMEMBERING[c.margin][1](m, self.limits, carry[c.name], **c.params)
            else:
                value = margins.MEMORYLESS[c.margin](m, self.limits, **c.params)
            out.append(value)
        return xp.stack(out, axis=-1), carry

    def over(self, samples: Measurement, carry: dict[str, Array], *, dt: float) -> Violation:
        """Margins and costs of an interval sampled every ``dt`` seconds.

        Args:
            samples: Leading dimensions (S, *B), time first.
            carry: From ``start`` or the interval before.
            dt: Time one sample stands for [s].

        Returns:
            Smallest margin, and the cost: ``dt`` per violated sample, or one event each time a margin turns
            negative.  See architecture.md, law 2: a coarser ``dt`` may miss what a finer one sees.
        """
        xp = namespace(samples.q)
        carry, smallest, cost = dict(carry), [], []
        for c in self.constraints:
            if c.margin in margins.STANDING:
                value, _ = margins.REMEMBERING[c.margin][1](samples, self.limits, carry[c.name], **c.params)
            elif c.remembers:
                rows = []
                for s in range(samples.q.shape[0]):
                    row, carry[c.name] = margins.REMEMBERING[c.margin][1](
                        samples.at(s), self.limits, carry[c.name], **c.params
                    )
                    rows.append(row)
                value = xp.stack(rows, axis=0)  # (S, *B)
            else:
                value = margins.MEMORYLESS[c.margin](samples, self.limits, **c.params)
            violated = xp.astype(value < 0, samples.q.dtype)
            if c.unit == "events":
                before = xp.concat([carry[c.name + "/violated"][None], violated[:-1]], axis=0)
                cost.append(xp.sum(xp.maximum(violated - before, xp.zeros_like(violated)), axis=0))
                carry[c.name + "/violated"] = violated[-1]
            else:
                cost.append(xp.sum(violated, axis=0) * dt)
            smallest.append(xp.min(value, axis=0))
        return Violation(xp.stack(smallest, axis=-1), xp.stack(cost, axis=-1), carry)


def parse(text: str, limits: Limits) -> ConstraintSet:
    """A constraint file's text, bound to ``limits``.

    Raises:
        ConfigError: If the text is no YAML mapping, a key is unknown or missing, or a value impossible.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"constraint file is not YAML: {error}") from error
    if not isinstance(raw, dict) or set(raw) != {"name", "version", "constraints"}:
        got = sorted(raw) if isinstance(raw, dict) else type(raw).__name__
        raise ConfigError(f"constraint file has {got}, need ['constraints', 'name', 'version']")
    if raw["version"] != 1:
        raise ConfigError(f"constraint file version {raw['version']!r}, this Palmar reads version 1")
    if not isinstance(raw["constraints"], dict) or not raw["constraints"]:
        raise ConfigError(f"constraints must be a non-empty mapping, got {raw['constraints']!r}")
    keys = set(Constraint.__dataclass_fields__)
    rows = []
    for name, values in raw["constraints"].items():
        if not isinstance(values, dict) or set(values) - keys:
            raise ConfigError(f"constraint {name}: unknown keys in {values!r}, accepted {sorted(keys - {'name'})}")
        try:
            rows.append(Constraint(name=name, **values))
        except TypeError as error:
            raise ConfigError(f"constraint {name}: {error}") from error
    return ConstraintSet(str(raw["name"]), int(raw["version"]), tuple(rows), limits)


def load(path: Path, limits: Limits) -> ConstraintSet:
    """The constraint file at ``path``.

    Raises:
        ConfigError: If it cannot be read or ``parse`` refuses it.
    """
    try:
        return parse(Path(path).read_text(), limits)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read constraint file {path}: {error}") from error


def _one_of(constraint: str, key: str, value: Any, accepted: Any) -> None:
    if value not in accepted:
        raise ConfigError(f"constraint {constraint}: {key} is {value!r}, accepted {list(accepted)}")
