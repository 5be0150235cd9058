# MuJoCo's names come from extension modules without stubs; to pyright they are unknown attributes otherwise.
from typing import Any

def __getattr__(name: str) -> Any: ...
