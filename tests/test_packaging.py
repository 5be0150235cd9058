"""What is on disk is what gets installed."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = {".py", ".yaml", ".xml", ".html", ".css", ".js", ".safetensors", ".json"}


def tracked():
    """Files of the import packages that git knows, relative to the root."""
    folders = PROJECT["tool"]["setuptools"]["package-dir"].values()
    listed = subprocess.run(["git", "ls-files", "--", *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def test_every_folder_of_code_is_in_the_package_list():
    on_disk = {"palmar." + ".".join(p.parent.parts) for p in tracked() if p.suffix == ".py"}
    assert on_disk == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_folder_of_code_is_a_package_that_declares_its_types():
    code = {p.parent for p in tracked() if p.suffix == ".py"}
    assert not [str(p) for p in code if not (ROOT / p / "__init__.py").exists()]
    top = {Path(p) for p in PROJECT["tool"]["setuptools"]["package-dir"].values()} - {
        Path("configs"),
        Path("assets"),
    }
    assert not [str(p) for p in top if not (ROOT / p / "py.typed").exists()]


def test_there_is_no_package_at_the_root():
    assert not (ROOT / "__init__.py").exists()


def test_editors_find_every_package():
    links = {p.name: (p.is_symlink(), p.resolve()) for p in (ROOT / ".typings" / "palmar").iterdir()}
    for folder in PROJECT["tool"]["setuptools"]["package-dir"].values():
        if folder not in ("assets", "configs"):
            assert links[folder] == (True, ROOT / folder)


def test_the_version_is_the_head_of_the_changelog():
    heads = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## [")]
    released = [h.split("[")[1].split("]")[0] for h in heads if "Unreleased" not in h]
    assert released[0] == PROJECT["project"]["version"]


def test_the_wheel_holds_every_file(tmp_path):
    """Built from a copy of what git tracks and without isolation: no download, no build folder left."""
    source = tmp_path / "source"
    for path in [*tracked(), Path("pyproject.toml"), Path("README.md"), Path("LICENSE")]:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((ROOT / path).read_bytes())
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    missing = [str(p) for p in tracked() if p.suffix in SHIPPED and f"palmar/{p}" not in names]
    assert not missing
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert not [n for n in names if n.startswith("tests/") or "/tests/" in n]
