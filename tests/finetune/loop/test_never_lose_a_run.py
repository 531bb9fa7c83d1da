"""Killed, interrupted or out of disk: the same command goes on and ends bit for bit the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forking import run_harness

HARNESS = Path(__file__).parents[1] / "kill_harness.py"
pytestmark = pytest.mark.timeout(1800)  # some thirty trainings, half a minute of a free core


def cut_off(folder: Path, base: Path, reviews: Path, kills: int, seed: int) -> dict[str, Any]:
    """What the harness saw of trainings on ``base`` in ``folder``."""
    shutil.copytree(base, folder / "base")
    shutil.copy(reviews, folder / "reviews.csv")
    return run_harness(HARNESS, folder, str(kills), str(seed))


def check_kills(seen: dict[str, Any], kills: int) -> None:
    assert all(one["code"] == 0 for one in seen["whole"].values())
    digests = {one["outcome"]["digest"] for one in seen["whole"].values()}
    assert len(digests) == len(seen["whole"])  # the settings differ, so the comparison can fail
    for one in seen["whole"].values():
        assert one["outcome"]["timed"] == one["outcome"]["steps"] > 10
    assert len(seen["moments"]) == kills
    for run in seen["runs"]:
        assert (run["code"], run["same"], run["left"]) == (0, True, []), (run, seen["moments"])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, make_base: Callable, reviews: Path) -> dict:
    return cut_off(tmp_path_factory.mktemp("kills"), make_base("roberta"), reviews, 4, seed=1)


def test_four_kills_change_nothing(seen: dict[str, Any]) -> None:
    check_kills(seen, 4)


def test_ctrl_c_and_sigterm_save_and_say_how_to_go_on(seen: dict[str, Any]) -> None:
    for one in seen["signals"]:
        assert (one["code"], one["again"], one["same"]) == (130, 0, True)
        assert not one["finished"]
        assert f"saved at step {one['step']} of" in one["log"]
        assert "the same command goes on" in one["log"]
        assert f"going on from step {one['step']}" in one["log"]
        assert "Traceback" not in one["log"]


def test_a_full_disk_is_told_and_harms_no_checkpoint(seen: dict[str, Any]) -> None:
    disk = seen["signals"][1]["full_disk"]
    assert (disk["code"], disk["kept"]) == (2, True)
    assert "cannot be written" in disk["log"]
    assert "goes on from checkpoint-" in disk["log"]
    assert "Traceback" not in disk["log"]


def test_two_processes_go_on_bit_for_bit_too(seen: dict[str, Any]) -> None:
    pair = seen["pair"]
    assert pair["codes"] == [0] * 6, pair["log"] + pair["sharded"]
    assert pair["same"]
    assert len(set(pair["rows"])) == 1
    assert pair["log"].count("\nrun folder ") == 1  # one of them writes and speaks
    assert "going on from step" in pair["log"]


def test_sharded_state_is_gathered_and_spread_again(seen: dict[str, Any]) -> None:
    assert seen["pair"]["sharded"].count("round trip done") == 1


@pytest.mark.slow
def test_fifty_kills_change_nothing(tmp_path: Path, make_base: Callable, reviews: Path) -> None:
    check_kills(cut_off(tmp_path, make_base("roberta"), reviews, 50, seed=2), 50)
