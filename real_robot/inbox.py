"""What comes in to the control process through shared memory: a look at each block per tick, whatever is new."""

from __future__ import annotations

import numpy as np

from palmar.real_robot import records, shared
from palmar.real_robot.layout import OPERATOR
from palmar.safety.types import People

ASKING = ("operator", "request")
"""Blocks that count an operator's requests: the monitor's, and the bridge's."""
Objects = tuple[np.ndarray, np.ndarray]
"""Positions (m, 3) [m] and quaternions (m, 4), world frame."""


class Inbox:
    """The blocks that others write.  A block that is torn for good is as good as none."""

    def __init__(self, blocks: dict[str, shared.Block], tracker: shared.Block | None = None):
        """Of a control process's file; ``tracker`` is the block of tracked objects, None without any."""
        self._blocks = blocks if tracker is None else {**blocks, "objects": tracker}
        self._tracked = tracker is not None
        self._versions = dict.fromkeys(self._blocks, 0)
        self._counts: dict[str, dict[str, int]] = {block: dict.fromkeys(OPERATOR, 0) for block in ASKING}
        self._people: People | None = None
        self._objects: Objects | None = None

    def new(self, name: str) -> np.void | None:
        """The block's record if it was written since the last look."""
        block = self._blocks[name]
        version = block.version
        if version == self._versions[name] or version % 2:
            return None
        try:
            record = block.read()
        except shared.TornRead:
            return None
        self._versions[name] = version
        return record

    def asked(self, block: str, record: np.void) -> list[str]:
        """What one of ``ASKING`` asks for that it has not asked for before, most urgent first."""
        counts = self._counts[block]
        found = [name for name in OPERATOR if int(record[name]) != counts[name]]
        counts.update({name: int(record[name]) for name in found})
        return found

    def people(self) -> People | None:
        """The newest capsules; the filter judges their age."""
        if (record := self.new("people")) is not None:
            self._people = records.people(record)
        return self._people

    def objects(self) -> Objects | None:
        """The newest poses of the objects; None until each was seen once."""
        if self._tracked and (o := self.new("objects")) is not None and np.all(o["seq"] > 0):
            self._objects = o["position"], o["quaternion"]
        return self._objects
