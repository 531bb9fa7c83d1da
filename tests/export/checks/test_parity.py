"""What a rung measures, and when it breaks."""

from __future__ import annotations

import numpy as np
import pytest

from export.checks.accuracy import AccuracyChecks, CheckRows, Thresholds, choose_rows
from export.checks.ladder import Ladder
from finetune.core.errors import FolderError, GateError
from finetune.run_folder import open_run, read_rows

LOGITS = np.array([[2.0, 0.0], [0.0, 2.0], [0.0004, 0.0], [0.0, 1.0]], dtype=np.float32)
LABELS = np.array([0, 1, 0, 0])


@pytest.fixture
def ladder():
    rows = CheckRows(("a", "b", "c", "d"), LABELS, LOGITS)
    told: list[str] = []
    ladder = Ladder(AccuracyChecks(rows, Thresholds(1e-3, 0.1)), told.append)
    ladder.climb("first", "reference", LOGITS)
    yield ladder
    assert len(told) == len(ladder.steps) + len(ladder.other_failures)


def test_a_float_stage_within_the_threshold_passes(ladder):
    moved = LOGITS + np.float32(5e-4)
    moved[2] = [0.0, 0.0004]  # flips, but its margin was 4e-4
    step = ladder.climb("second", "float", moved, "first")
    assert (step.flipped, step.flipped_above_margin) == (1, 0)
    assert step.largest_logit_difference == pytest.approx(5e-4, rel=1e-3)
    assert step.failure is None
    ladder.gate(kept="here")


def test_a_float_stage_that_drifts_fails(ladder):
    ladder.climb("second", "float", LOGITS + np.float32(2e-3), "first")
    with pytest.raises(GateError, match=r"second: largest logit difference 0.002(.|\n)*here"):
        ladder.gate(kept="here")


def test_flips_above_the_margin_are_counted(ladder):
    step = ladder.climb("second", "float", LOGITS[:, ::-1], "first")
    assert (step.flipped, step.flipped_above_margin) == (4, 3)
    assert step.accuracy == 0.25


def test_a_quantised_stage_may_drift_but_not_lose_accuracy(ladder):
    assert ladder.climb("drifted", "quantized", LOGITS * 3, "first").failure is None
    step = ladder.climb("still right", "quantized", LOGITS * 2, "first")
    assert (step.worse_by, step.compared_rows) == (0.0, 4)


def test_a_quantised_stage_may_not_flip_many_clear_labels(ladder):
    moved = LOGITS.copy()
    moved[0], moved[3] = [0.0, 1.0], [1.0, 0.0]  # one right label lost, one gained
    step = ladder.climb("moved", "quantized", moved, "first")
    assert (step.flipped_above_margin, step.gained, step.lost) == (2, 1, 1)
    assert step.mcnemar_p == 1.0
    assert step.failure == "2 of 4 labels flipped whose margin was above 0.1, allowed 5.0%"


def test_every_step_is_tested_against_the_first(ladder):
    ladder.climb("second", "reported", LOGITS[:, ::-1], "first")
    step = ladder.climb("third", "reported", LOGITS[:, ::-1], "second")
    assert (step.flipped, step.gained, step.lost) == (0, 1, 3)
    low, high = step.f1_interval
    assert low <= step.f1_macro <= high
    assert ladder.steps[0].mcnemar_p is None


def test_a_limit_crossed_outside_the_steps_fails_too(ladder):
    ladder.climb("second", "float", LOGITS, "first")
    ladder.fail("stability-int8", "9 of 10 labels depend on batch or padding")
    with pytest.raises(GateError, match="stability-int8: 9 of 10"):
        ladder.gate(kept="here")


def test_a_reported_stage_never_fails_and_all_failures_are_told(ladder):
    assert ladder.climb("told", "reported", LOGITS + 1, "first").failure is None
    ladder.climb("one", "float", LOGITS + 1, "first")
    ladder.climb("two", "float", LOGITS - 1, "first")
    with pytest.raises(GateError, match=r"one: (.|\n)*two: "):
        ladder.gate(kept="here")


def test_logits_that_are_not_finite_fail_any_stage(ladder):
    broken = LOGITS.copy()
    broken[1, 0] = np.nan
    step = ladder.climb("broken", "quantized", broken, "first")
    assert step.failure == "logits are not finite numbers"
    assert step.accuracy is None


def test_fewer_rows_are_compared_with_the_same_rows(ladder):
    step = ladder.climb("alone", "float", LOGITS[:2], "first")
    assert (step.rows, step.accuracy, step.flipped) == (2, 1.0, 0)


def test_rows_are_chosen_by_the_seed_with_their_own_logits(make_run):
    run = open_run(make_run("lora", "roberta"))
    everything, some = choose_rows(run, 10_000), choose_rows(run, 10)
    assert everything.texts == tuple(read_rows(run, "validation")["text"])
    assert some.texts == choose_rows(run, 10).texts
    assert some.texts != everything.texts[:10]
    assert triples(some) <= triples(everything)


def triples(rows: CheckRows) -> set[tuple[str, int, tuple[float, ...]]]:
    return {
        (text, int(label), tuple(logits.tolist()))
        for text, label, logits in zip(rows.texts, rows.labels, rows.stored_logits, strict=True)
    }


def test_a_run_given_away_without_its_rows_says_so(make_run, tmp_path):
    import json
    import shutil

    folder = shutil.copytree(make_run("lora", "roberta"), tmp_path / "run")
    shutil.rmtree(folder / "data")
    info = json.loads((folder / "run.json").read_text("utf-8"))
    info["files"] = {name: value for name, value in info["files"].items() if "data/" not in name}
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(FolderError, match="no data of its validation split"):
        choose_rows(open_run(folder), 10)
