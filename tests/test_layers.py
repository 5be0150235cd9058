"""Who may import whom, read from the syntax trees: docs/architecture.md, and what no file may do."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "safety": (),
    "sim": ("safety",),
    "rollouts": ("sim.interface", "safety"),
    "policies": ("sim", "safety", "rollouts"),
    "real_robot": ("sim.interface", "safety", "rollouts"),
    "cli": ("sim", "safety", "rollouts", "policies", "real_robot", "benchmarks", "configs", "assets"),
    "benchmarks": ("sim", "safety", "rollouts", "policies", "real_robot", "cli", "configs", "assets"),
    "configs": (),
    "assets": ("sim", "safety"),
}
"""Left may import right, and itself."""

DATA = ("configs", "assets")
"""Files beside the code, which every folder but safety may read through importlib.resources."""

EXTRA = {
    "real_robot/twin.py": ("sim",),
    "real_robot/twin_scene.py": ("sim",),
    "real_robot/deploy.py": ("sim.robots",),
    "real_robot/nodes/chooser.py": ("policies.bundle", "policies.contract", "sim"),
    "real_robot/nodes/twin_cameras.py": ("sim",),
}
"""Single files that may import more: simulated hardware simulates, its supervisor names the robot of the
scene, and the chooser of the policy node runs a task's policy."""

RCLPY = ("real_robot/nodes/", "real_robot/ros_env.py")
"""Where rclpy may be imported.  ``palmar doctor`` imports it in a subprocess, as text."""

BANNED = {
    "pickle": "never pickle",
    "dill": "never pickle",
    "cloudpickle": "never pickle",
    "joblib": "never pickle",
    "shelve": "never pickle",
}


def imports(tree):
    """(line, dotted name) of every import, also inside functions; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or "")
            else:
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def reaches(name, prefixes):
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def wrong_import(path, name):
    """Why the file at ``path`` may not import ``name``, or ''."""
    folder = path.split("/")[0]
    head = name.split(".")[0]
    if name.startswith("."):
        return "relative import"
    if head in MAY_IMPORT:
        return f"bare import, say palmar.{name}"
    if head in BANNED:
        return BANNED[head]
    if head == "rclpy" and not path.startswith(RCLPY):
        return f"rclpy only in {RCLPY}"
    if head in ("torch", "rclpy", "hydra", "omegaconf") and folder == "safety":
        return f"no {head} in safety"
    if head != "palmar":
        return ""
    inner = name.removeprefix("palmar.")
    data = () if folder == "safety" else DATA
    allowed = (folder, *MAY_IMPORT[folder], *EXTRA.get(path, ()), *data)
    # ``from palmar.sim import interface`` is palmar.sim.interface, so the deepest name decides.
    return "" if reaches(inner, allowed) else f"{folder} may import {sorted(allowed)} only"


def dangerous_call(node):
    """What is wrong with a call, or ''."""
    called = ast.unparse(node.func)
    if called in ("eval", "exec", "compile", "__import__"):
        return f"{called}()"
    if called in ("torch.load", "np.load", "numpy.load") and not any(
        k.arg in ("weights_only", "allow_pickle") for k in node.keywords
    ):
        return f"{called} may unpickle: say weights_only=True or allow_pickle=False"
    if any(
        (k.arg, getattr(k.value, "value", None)) in (("allow_pickle", True), ("weights_only", False))
        for k in node.keywords
    ):
        return f"{called} unpickles"
    return ""


def faults(path, source):
    """Everything wrong with one file, as 'path:line what'."""
    tree = ast.parse(source)
    for line, name in imports(tree):
        if why := wrong_import(path, name):
            yield f"{path}:{line} imports {name}: {why}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (why := dangerous_call(node)):
            yield f"{path}:{node.lineno} {why}"


def sources():
    return [p for folder in MAY_IMPORT for p in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_keeps_to_its_arrows(path):
    found = list(faults(str(path.relative_to(ROOT)), path.read_text()))
    assert not found, "\n".join(found)


def test_every_folder_of_code_has_its_arrows():
    code = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert code == set(MAY_IMPORT)


@pytest.mark.parametrize("path", EXTRA)
def test_every_exception_is_still_needed(path):
    used = {name.removeprefix("palmar.") for _, name in imports(ast.parse((ROOT / path).read_text()))}
    assert [allowed for allowed in EXTRA[path] if not any(reaches(name, (allowed,)) for name in used)] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("safety/a.py", "import torch"),
        ("safety/a.py", "def f():\n    from palmar.sim import scene"),
        ("safety/a.py", "from palmar.configs import x"),
        ("sim/a.py", "from palmar.rollouts.record import Recorder"),
        ("sim/a.py", "import palmar.policies.bundle"),
        ("rollouts/a.py", "from palmar.sim import env"),
        ("rollouts/a.py", "from palmar.sim.env import VectorEnv"),
        ("real_robot/control.py", "from palmar.sim import scene"),
        ("real_robot/nodes/bridge.py", "from palmar.policies import bundle"),
        ("real_robot/nodes/chooser.py", "from palmar.policies import train"),
        ("real_robot/control.py", "def f():\n    import rclpy"),
        ("policies/a.py", "from palmar.cli import main"),
        ("sim/a.py", "from . import scene"),
        ("sim/a.py", "import safety"),
        ("cli/a.py", "from sim.scene import x"),
        ("cli/a.py", "import pickle"),
        ("cli/a.py", "eval('1')"),
        ("policies/a.py", "torch.load('x')"),
        ("policies/a.py", "torch.load('x', weights_only=False)"),
        ("rollouts/a.py", "np.load('x', allow_pickle=True)"),
    ],
)
def test_the_checker_sees_what_is_forbidden(path, source):
    assert list(faults(path, source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("rollouts/a.py", "from palmar.sim.interface import Step"),
        ("rollouts/a.py", "from palmar.sim import interface"),
        ("real_robot/twin.py", "from palmar.sim import scene"),
        ("real_robot/nodes/chooser.py", "from palmar.policies import bundle"),
        ("real_robot/nodes/policy.py", "import rclpy"),
        (
            "sim/a.py",
            "import mujoco\nfrom importlib.resources import files\nfrom palmar.safety.types import Array",
        ),
        ("policies/a.py", "torch.load('x', weights_only=True)\npolicy.eval()\nre.compile('x')"),
    ],
)
def test_the_checker_lets_pass_what_is_allowed(path, source):
    assert not list(faults(path, source))
