"""How a LEAP hand is wired and how hard it may press."""

from __future__ import annotations

from dataclasses import dataclass

from palmar.real_robot.drivers.dynamixel import BAUDS
from palmar.real_robot.drivers.leap_motors import KINDS
from palmar.safety.types import ConfigError


@dataclass(frozen=True)
class LeapConfig:
    """How the hand is wired and how hard it may press."""

    port: str = "/dev/ttyUSB0"
    """Better the stable name under /dev/serial/by-id."""
    baudrate: int = 4_000_000
    motor: str = "XC330-M288"
    """XC330-M288 (full hand) or XL330-M288 (lite)."""
    current: float | None = None
    """Cap per motor [A]; None: 0.55 full, 0.35 lite."""
    p_gain: int = 600
    i_gain: int = 0
    d_gain: int = 200
    side_share: float = 0.75
    """Gains of the side joints, in parts of the others'."""
    watchdog: float = 1.0
    """Time without instructions after which the motors stop by themselves [s], 0.02 to 2.54, in steps of 0.02."""
    timeout: float = 0.01
    """Patience with an answer, beyond its time on the wire [s]."""
    rate: float = 200.0
    """Cycles of write and read per second [Hz]."""
    lost_after: int = 3
    """Failed readings in a row after which the driver finds out which motor is lost."""
    voltage: tuple[float, float] = (4.3, 6.0)
    """Accepted supply [V]."""
    temperature: float = 60.0
    """Hottest motor accepted [deg C]; they switch off at 70."""

    def __post_init__(self) -> None:
        if self.motor not in KINDS:
            raise ConfigError(f"motor must be one of {sorted(KINDS)}, got {self.motor!r}")
        if self.baudrate not in BAUDS:
            raise ConfigError(f"baudrate must be one of {sorted(BAUDS)}, got {self.baudrate!r}")
        object.__setattr__(self, "voltage", tuple(self.voltage))
        ranges = {
            "current": (0.05, 1.75, self.cap),
            "p_gain": (0, 16_383, self.p_gain),
            "i_gain": (0, 16_383, self.i_gain),
            "d_gain": (0, 16_383, self.d_gain),
            "side_share": (0.1, 1.0, self.side_share),
            "watchdog": (0.02, 2.54, self.watchdog),
            "timeout": (0.0005, 0.5, self.timeout),
            "rate": (20.0, 500.0, self.rate),
            "lost_after": (1, 100, self.lost_after),
            "temperature": (20.0, 70.0, self.temperature),
        }
        for name, (low, high, value) in ranges.items():
            if not low <= value <= high:
                raise ConfigError(f"{name} must be {low} to {high}, got {value}")
        if len(self.voltage) != 2 or not 3.7 <= self.voltage[0] < self.voltage[1] <= 6.0:
            raise ConfigError(f"voltage must be (low, high) within 3.7 to 6.0 V, got {self.voltage}")

    @property
    def cap(self) -> float:
        """Current cap per motor [A]."""
        return KINDS[self.motor].current if self.current is None else self.current
