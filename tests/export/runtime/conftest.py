"""The browser example's npm packages, for the tests that need node or a browser."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "browser"
NO_REGISTRY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH", "ECONNRESET")


@pytest.fixture(scope="session")
def packages() -> Path:
    """The example's npm packages, kept in .cache until its lock file changes."""
    lock = (EXAMPLE / "package-lock.json").read_bytes()
    folder = ROOT / ".cache" / "clients" / f"npm-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        ours = shutil.ignore_patterns("node_modules")
        shutil.copytree(EXAMPLE, folder, ignore=ours)
        done = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True)
        if done.returncode and any(word in done.stderr for word in NO_REGISTRY):
            pytest.skip(f"npm cannot reach its registry: {done.stderr.strip().splitlines()[0]}")
        assert done.returncode == 0, done.stderr
        (folder / "ready").touch()
    return folder / "node_modules"
