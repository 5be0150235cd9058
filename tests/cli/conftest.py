"""Running the palmar command in this process, and in one of its own."""

import subprocess
import sys

import pytest

from palmar.cli.main import main


@pytest.fixture
def palmar(capsys):
    """``palmar("train", "--help")`` gives (exit code, what it printed, what it complained)."""

    def call(*words):
        capsys.readouterr()
        code = main([str(w) for w in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def process():
    """The same in a fresh interpreter; keyword arguments are added to its environment."""

    def call(*words, **environment):
        import os

        return subprocess.run(
            [sys.executable, "-m", "palmar.cli.main", *map(str, words)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=120,
            check=False,
        )

    return call
