"""What was refused: counted by reason for ``/diagnostics``, and said aloud once per second at most."""

from __future__ import annotations

import time
from typing import Any

LOG_EVERY = 1.0
"""At most one log line per this time [s]."""


class Refusals:
    """Counts of one node."""

    def __init__(self, logger: Any):
        self._logger, self._logged = logger, -LOG_EVERY
        self.counts: dict[str, int] = {}
        """How often each reason occurred."""
        self.last = ""
        """The last refusal in words."""

    def note(self, reason: str, detail: str) -> None:
        """Count one refusal; ``detail`` says what came and what is accepted."""
        self.counts[reason], self.last = self.counts.get(reason, 0) + 1, detail[:200]
        now = time.monotonic()
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            self._logger.warning(f"refused ({sum(self.counts.values())} so far): {self.last}")
