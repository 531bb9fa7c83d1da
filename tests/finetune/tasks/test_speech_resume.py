"""A speech training that is killed or interrupted goes on and ends bit for bit the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from forking import run_harness

HARNESS = Path(__file__).parents[1] / "speech_kill_harness.py"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_harness(HARNESS, tmp_path_factory.mktemp("kills"))


def test_kills_change_nothing(seen: dict[str, Any]) -> None:
    found = seen["killed"]
    assert found["codes"] == [-9, -9, 0], found["log"]
    assert "going on from step" in found["log"]
    assert found["outcome"] == seen["whole"] and not found["left"]
    assert seen["whole"]["steps"] == seen["whole"]["timed"] == 12


def test_sigterm_saves_and_says_so(seen: dict[str, Any]) -> None:
    found = seen["interrupted"]
    assert found["codes"] == [130, 0], found["log"]
    assert "saved at step" in found["log"] and "going on from step" in found["log"]
    assert found["outcome"] == seen["whole"] and not found["left"]
