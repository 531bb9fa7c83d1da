"""Real data, where the environment names it; elsewhere the tests that need it skip and say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def named_folder(variable: str) -> Path:
    """The folder an environment variable names; skips where it is not set."""
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{variable} is not set to a folder: this test needs the real data")
    return Path(value).resolve()


@pytest.fixture(scope="session")
def nsmc_folder() -> Path:
    """The folder with NSMC's two files (KOTUNE_NSMC)."""
    return named_folder("KOTUNE_NSMC")


@pytest.fixture(scope="session")
def e5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked e5-small-ko encoder (KOTUNE_E5, packed or unpacked)."""
    folder = named_folder("KOTUNE_E5")
    if (folder / "model.safetensors").is_file():
        return folder
    target = tmp_path_factory.mktemp("e5")
    subprocess.run([sys.executable, folder / "unpack.py", target], check=True)
    return target
