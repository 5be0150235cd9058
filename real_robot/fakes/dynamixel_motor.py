"""One motor of a fake Dynamixel bus: its control table with access rights, its errors and its bus watchdog.

The table is that of XC330-M288 and XL330-M288 (emanual.robotis.com, the same for both), as far as a hand uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

INSTRUCTION_ERROR, RANGE, LENGTH, ACCESS = 0x02, 0x04, 0x05, 0x07
ALERT = 0x80
ROM_END = 64
"""Below this address a write is refused while torque is on."""
HARDWARE_ERRORS = {"input_voltage": 0, "overheating": 2, "motor_encoder": 3, "electrical_shock": 4, "overload": 5}
"""Bits of Hardware Error Status and of Shutdown."""
TURNS = 1_048_575
"""Largest goal of the multi-turn modes [counts]."""
CURRENT_LIMIT = {1240: 2352, 1200: 1750}
"""Default of register 38 by model number [mA]."""


@dataclass(frozen=True)
class Item:
    """One register."""

    size: int
    writable: bool
    low: int
    high: int
    """Accepted values, signed where ``low`` is negative."""
    initial: int


def _table(model: int, firmware: int, ident: int) -> dict[int, Item]:
    most, gain = CURRENT_LIMIT[model], (True, 0, 16_383)
    return {
        0: Item(2, False, 0, 65_535, model),
        2: Item(4, False, 0, 2**32 - 1, 0),
        6: Item(1, False, 0, 255, firmware),
        7: Item(1, True, 0, 252, ident),
        8: Item(1, True, 0, 6, 6),
        9: Item(1, True, 0, 254, 250),
        10: Item(1, True, 0, 13, 0),
        11: Item(1, True, 0, 16, 3),
        20: Item(4, True, -1_044_479, 1_044_479, 0),
        31: Item(1, True, 0, 100, 70),
        32: Item(2, True, 31, 70, 70),
        34: Item(2, True, 31, 70, 35),
        38: Item(2, True, 0, most, most),
        48: Item(4, True, 0, 4095, 4095),
        52: Item(4, True, 0, 4095, 0),
        63: Item(1, True, 0, 255, 52 if model == 1240 else 53),
        64: Item(1, True, 0, 1, 0),
        65: Item(1, True, 0, 1, 0),
        68: Item(1, True, 0, 2, 2),
        69: Item(1, False, 0, 1, 0),
        70: Item(1, False, 0, 255, 0),
        80: Item(2, *gain, 500 if model == 1240 else 0),
        82: Item(2, *gain, 0),
        84: Item(2, *gain, 1100 if model == 1240 else 400),
        88: Item(2, *gain, 0),
        90: Item(2, *gain, 0),
        98: Item(1, True, 0, 127, 0),
        100: Item(2, True, -885, 885, 885),
        102: Item(2, True, -most, most, most),
        104: Item(4, True, -2047, 2047, 0),
        108: Item(4, True, 0, 32_767, 0),
        112: Item(4, True, 0, 32_767, 0),
        116: Item(4, True, -TURNS, TURNS, 0),
        120: Item(2, False, 0, 32_767, 0),
        122: Item(1, False, 0, 1, 0),
        123: Item(1, False, 0, 255, 0),
        124: Item(2, False, -885, 885, 0),
        126: Item(2, False, -most, most, 0),
        128: Item(4, False, -(2**31), 2**31 - 1, 0),
        132: Item(4, False, -(2**31), 2**31 - 1, 0),
        136: Item(4, False, -(2**31), 2**31 - 1, 0),
        140: Item(4, False, -(2**31), 2**31 - 1, 0),
        144: Item(2, False, 0, 65_535, 50),
        146: Item(1, False, 0, 255, 35),
    }


GOALS = (100, 102, 104, 116)
"""Registers that are read-only after a trip of the bus watchdog."""


class Motor:
    """A motor's registers.  Times in seconds of the caller's clock."""

    def __init__(self, ident: int, ram: memoryview, *, model: int = 1240, firmware: int = 52):
        self.items = _table(model, firmware, ident)
        self._defined = {at for a, item in self.items.items() for at in range(a, a + item.size)}
        self.ram = ram
        """Its 256 bytes."""
        self.bus_seen = 0.0
        """When an instruction for this motor last came."""
        self.silent_until = 0.0
        """A motor that reboots is deaf until then; inf is a motor that is lost."""
        for address in self.items:
            self.put(address, self.items[address].initial)

    def get(self, address: int) -> int:
        """Value of a register."""
        item = self.items[address]
        return int.from_bytes(self.ram[address : address + item.size], "little", signed=item.low < 0)

    def put(self, address: int, value: int) -> None:
        """Set a register from inside, whatever its rights."""
        item = self.items[address]
        self.ram[address : address + item.size] = int(value).to_bytes(item.size, "little", signed=item.low < 0)

    @property
    def on(self) -> bool:
        """Whether its torque is on."""
        return bool(self.ram[64])

    @property
    def alert(self) -> int:
        """The alert bit of its status packets."""
        return ALERT if self.ram[70] else 0

    def read(self, address: int, size: int) -> tuple[int, bytes]:
        """Error number and data of a read; every byte has to belong to a register."""
        if size == 0 or not self._defined.issuperset(range(address, address + size)):
            return ACCESS, bytes(size)
        return 0, bytes(self.ram[address : address + size])

    def write(self, address: int, data: bytes) -> int:
        """Write whole registers, one after another; the error number."""
        done = []
        while data:
            item = self.items.get(address)
            if item is None or not item.writable or (address < ROM_END and self.on):
                return ACCESS
            if len(data) < item.size:
                return LENGTH
            value = int.from_bytes(data[: item.size], "little", signed=item.low < 0)
            if not item.low <= value <= item.high or (address in GOALS and self.ram[98] == 255):
                return RANGE
            done.append((address, value))
            address, data = address + item.size, data[item.size :]
        for at, value in done:
            self._take(at, value)
        return 0

    def _take(self, address: int, value: int) -> None:
        if address == 64 and value and self.ram[70] & self.ram[63]:
            return  # only a reboot ends a shutdown
        if address == 64 and value and not self.on:
            self.put(116, self.get(132))
        if address == 11 and value != self.get(11):
            for goal in (*GOALS, 80, 82, 84):  # a new mode resets gains and goals
                self.put(goal, self.items[goal].initial)
        self.put(address, value)

    def overdue(self, now: float) -> bool:
        """Whether its bus watchdog has waited for too long."""
        limit = self.ram[98]
        return self.on and 1 <= limit <= 127 and now - self.bus_seen > 0.02 * limit

    def trip(self, now: float) -> None:
        """The bus watchdog: after its time without an instruction the motor stops and its goals are read-only.

        In the position modes the goal becomes the present position (DynamixelSDK issue 584), so that a motor
        which pressed on something presses no longer.
        """
        if self.overdue(now):
            self.ram[98] = 255
            self.put(116, self.get(132))

    def fail(self, error: str) -> None:
        """Raise a hardware error; one that is in Shutdown takes the torque away."""
        self.ram[70] |= 1 << HARDWARE_ERRORS[error]
        if self.ram[70] & self.ram[63]:
            self.ram[64] = 0

    def reboot(self, now: float, *, seconds: float = 0.3) -> None:
        """RAM back to its defaults, torque off, deaf for a while."""
        for address, item in self.items.items():
            if address >= ROM_END and address not in (132, 144, 146):
                self.put(address, item.initial)
        self.silent_until = now + seconds
