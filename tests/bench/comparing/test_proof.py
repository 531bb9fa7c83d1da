"""The proofs of the benchmark: run quickly here, held to their claims where marked slow."""

from __future__ import annotations

import time

import pytest
from typer.testing import CliRunner

from bench.comparing import proof
from bench.engines.engine import Engine, slow_down
from finetune.core.errors import GateError

QUICK = ["processes=1", "rounds=6", "latency_rows=10", "warmup_s=0.3", "threads=1"]
SETTINGS = [f"--set={setting}" for setting in [*QUICK, "target_half_width=null"]]


@pytest.fixture(scope="module")
def folders(make_run, make_artifact) -> list[str]:
    return [str(make_run("lora", "roberta")), str(make_artifact("lora", "roberta"))]


def run(folders: list[str], what: str, *more: str) -> tuple[str, BaseException | None]:
    arguments = [what, *folders, "--variant", "lora-onnx-int8", *SETTINGS, *more]
    done = CliRunner().invoke(proof.app, arguments)
    return done.output, done.exception


def test_a_slower_variant_is_found(folders: list[str]) -> None:
    told, fault = run(folders, "ab", "--repetitions", "1", "--slowdown", "4.0")
    assert fault is None, told
    assert "1 of 1 found the slowdown of 400%" in told
    ratio = float(told.split("| 1 | ")[1].split(" | ")[0])
    assert ratio > 2


def test_the_same_variant_is_measured_thrice_and_the_table_is_printed(folders: list[str]) -> None:
    """Whether it is called a tie is for the slow proof: six rounds of ten reviews show nothing."""
    told, _ = run(folders, "aa", "--repetitions", "2")
    rows = [line for line in told.splitlines() if line.startswith(("| 1 |", "| 2 |"))]
    assert len(rows) == 2
    assert all(len(row.split("|")) == 11 for row in rows)
    assert "    python -m bench.comparing.proof" in told
    assert " 1 threads; " in told
    assert "of 2 called a difference" in told


def test_the_cost_is_a_ratio_of_two_passes(folders: list[str]) -> None:
    """Whether it is small is for the slow proof: three passes of ten reviews show nothing."""
    told, fault = run(folders, "cost", "--pairs", "3")
    ratio, interval = told.split("| ---: | ---: | ---: |\n|")[1].split("|")[:2]
    low, high = (float(end) for end in interval.split("–"))
    assert 0 < low < float(ratio) < high
    assert (fault is None) == (high <= 1.02)


def test_what_does_not_hold_ends_with_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GateError, match="3 false differences"):
        proof.conclude("Proof", 1, ["| table |"], "3 of 4.", ["3 false differences"], "at most 2")
    assert GateError.exit_code == 1
    told = capsys.readouterr().out
    assert "# Proof" in told and "| table |" in told
    assert "3 of 4. Fails (3 false differences): at most 2." in told


def test_a_slowdown_is_a_share_of_every_call() -> None:
    engine = Engine(lambda text: time.sleep(0.01) or 1, lambda texts, size: [1] * len(texts))
    slow = slow_down(engine, 0.5)
    began = time.perf_counter()
    assert [slow.answer("a") for _ in range(5)] == [1] * 5
    assert time.perf_counter() - began >= 5 * 0.015
    assert slow_down(engine, 0.0) is engine


def test_speech_is_proved_in_the_same_way(tones_run, tones_artifact) -> None:
    settings = ["processes=1", "rounds=4", "calls=4", "lengths_s=[1]", "warmup_s=0.1", "threads=1"]
    words = ["ab", str(tones_run), str(tones_artifact), "--variant", "full-onnx-int8"]
    words += ["--repetitions", "1", "--slowdown", "4.0"]
    words += [f"--set={one}" for one in [*settings, "target_half_width=null"]]
    done = CliRunner().invoke(proof.app, words)
    assert done.exception is None, done.output
    assert "1 of 1 found the slowdown of 400%" in done.output
    cost = ["cost", *words[1:5], "--pairs", "3", *(f"--set={one}" for one in settings)]
    told = CliRunner().invoke(proof.app, cost).output
    assert "What the harness adds" in told


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("more", [[], ["--busy"]], ids=["quiet", "busy"])
def test_twenty_benchmarks_of_the_same_variant(folders: list[str], more: list[str]) -> None:
    """At most 2 of 20 differ and no half-width exceeds 3 %, also beside a busy program."""
    arguments = ["aa", *folders, "--variant", "lora-onnx-int8", "--budget", "60", *more]
    done = CliRunner().invoke(proof.app, arguments)
    assert done.exception is None, done.output


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_five_percent_sleep_is_found_in_eighteen_of_twenty(folders: list[str]) -> None:
    arguments = ["ab", *folders, "--variant", "lora-onnx-int8", "--budget", "60"]
    done = CliRunner().invoke(proof.app, arguments)
    assert done.exception is None, done.output


@pytest.mark.slow
def test_the_harness_costs_less_than_two_percent(folders: list[str]) -> None:
    arguments = ["cost", *folders, "--variant", "lora-onnx-int8", "--pairs", "400"]
    done = CliRunner().invoke(proof.app, arguments)
    assert done.exception is None, done.output
