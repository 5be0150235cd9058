"""What every fake of some hardware is: a thread that serves it while it is switched on, and ways to hurt it."""

from __future__ import annotations

import json
import threading
from typing import Any, ClassVar, Self

from palmar.safety.config import unknown
from palmar.safety.types import ConfigError


class Served:
    """Hardware that lives in a thread of this process from ``start`` to ``close``; a context manager.

    A fake defines ``_serve``, which returns soon after ``running`` is false, and ``_plug_in`` and ``_unplug`` where
    it has a port.
    """

    orders: ClassVar[tuple[str, ...]] = ()
    """Methods that ``order`` may call: mostly what hurts it."""
    running = False
    _thread: threading.Thread | None = None

    def start(self) -> Self:
        """Switch it on."""
        self._plug_in()
        self.running = True
        self._thread = threading.Thread(target=self._serve, name=type(self).__name__, daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Switch it off; what it moves keeps its last target."""
        if self._thread is not None:
            self.running = False
            self._thread.join()
            self._thread = None
            self._unplug()

    def order(self, line: str) -> Any:
        """Do what a line of JSON says, ``{"do": "drop", "args": [19]}``; what that method returns.

        Raises:
            ConfigError: If the line is no such thing.
        """
        try:
            asked = json.loads(line)
            if asked["do"] not in self.orders:
                raise ConfigError(unknown(f"order to {type(self).__name__}", asked["do"], self.orders))
            return getattr(self, asked["do"])(*asked.get("args", ()), **asked.get("named", {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            need = f'need {{"do": one of {list(self.orders)}, "args": [...]}}'
            raise ConfigError(f"not done: {line.strip()} ({error!r}); {need}") from error

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        raise NotImplementedError

    def _plug_in(self) -> None:
        """Open its port."""

    def _unplug(self) -> None:
        """Its port goes away."""
