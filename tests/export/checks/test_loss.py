"""A loss is refused on evidence; where the rows cannot tell, more are asked, or it is said."""

from __future__ import annotations

import numpy as np
import pytest

from export.checks.accuracy import AccuracyChecks, CheckRows, Thresholds
from export.checks.ladder import Ladder
from export.checks.word_errors import CheckRecordings, Heard, SpeechChecks, SpeechThresholds
from finetune.core.errors import GateError

RIGHT, WRONG = [0.0, 1.0], [1.0, 0.0]


def answers(wrong: list[int], rows: int) -> np.ndarray:
    """Logits of rows whose class is 1, wrong where it is said."""
    logits = np.array([RIGHT] * rows, dtype=np.float32)
    logits[wrong] = WRONG
    return logits


def start(rows: int, further: int, allowed: float, wrong: list[int]) -> tuple[Ladder, list[str]]:
    """A ladder whose file "float" errs in the rows named, further ones counted on."""
    names = tuple(str(row) for row in range(rows + further))
    chosen = CheckRows(
        names[:rows],
        np.ones(rows, dtype=np.int64),
        answers([], rows),
        names[rows:],
        np.ones(further, dtype=np.int64),
    )
    told: list[str] = []
    thresholds = Thresholds(1e-3, allowed, max_flipped_above_margin=1.0)
    ladder = Ladder(AccuracyChecks(chosen, thresholds), told.append)
    ask = asker(wrong)
    ladder.climb("float", "reference", ask(names[:rows]), again=ask)
    return ladder, told


def asker(wrong: list[int]):
    """What answers rows by their names."""

    def ask(rows) -> np.ndarray:
        return np.array([WRONG if int(row) in wrong else RIGHT for row in rows], dtype=np.float32)

    return ask


def climb(ladder: Ladder, wrong: list[int]):
    ask = asker(wrong)
    return ladder.climb("int8", "quantized", ask(ladder.checks.rows), "float", again=ask)


def test_a_loss_that_a_test_tells_from_none_is_refused_with_its_interval() -> None:
    ladder, _ = start(400, 0, 0.01, [])
    step = climb(ladder, list(range(12)))
    assert step.failure.startswith("loses 3 points of accuracy (1.") and step.note is None
    assert step.failure.endswith("on 400 rows), allowed 1")
    with pytest.raises(GateError, match="within 1 points of accuracy"):
        ladder.gate(kept="here")


def test_a_loss_that_no_test_tells_from_none_is_not_refused_but_said() -> None:
    """The case of 200 rows: three labels are 1.5 points, and may be nothing."""
    ladder, told = start(200, 0, 0.01, [])
    step = climb(ladder, [0, 1, 2])
    assert step.failure is None
    assert step.note.startswith("undecided: loses 1.5 points of accuracy (")
    assert step.rows_needed > 200 and f"about {step.rows_needed:,} rows would tell" in step.note
    assert ladder.notes == [f"int8: {step.note}"] and step.note in told[-1]
    ladder.gate(kept="here")


def test_few_rows_that_agree_are_not_called_enough() -> None:
    ladder, _ = start(50, 0, 0.01, [])
    step = climb(ladder, [])
    assert (step.worse_by, step.failure) == (0.0, None)
    assert step.note and step.worse_by_interval[1] > 0.01


def test_enough_rows_that_agree_decide() -> None:
    ladder, _ = start(1_000, 0, 0.01, [])
    assert climb(ladder, [3]).note is None


def test_further_rows_are_asked_where_the_first_cannot_tell() -> None:
    ladder, told = start(100, 5_000, 0.01, [])
    step = climb(ladder, [0, 1, *range(200, 300)])
    assert step.rows == 100 and 100 < step.compared_rows < 5_100
    assert step.failure.startswith("loses "), "the further rows prove the loss"
    assert any("further validation rows" in line for line in told)
    ladder, _ = start(100, 5_000, 0.01, [5, 150])
    step = climb(ladder, [5, 150, 160])
    assert step.failure is None and step.note is None and step.compared_rows > 300


def test_with_no_further_rows_left_it_stays_undecided() -> None:
    ladder, _ = start(100, 30, 0.01, [])
    step = climb(ladder, [0])
    assert step.compared_rows == 130 and step.note and step.rows_needed > 130


def test_nothing_may_be_lost_is_never_proven_by_rows_that_agree() -> None:
    ladder, _ = start(300, 0, 0.0, [])
    step = climb(ladder, [])
    assert step.failure is None and "no number of rows would tell" in step.note


def test_word_errors_are_judged_alike() -> None:
    rows = 200
    references = ("ONE TWO",) * rows
    waves = tuple(np.zeros(8, dtype=np.float32) for _ in range(rows))
    chosen = CheckRecordings(waves, references, references)
    ladder = Ladder(SpeechChecks(chosen, SpeechThresholds(1e-2, 0.01)), lambda line: None)
    ladder.climb("float", "reference", Heard(list(references)))
    logits = [np.zeros((2, 3), dtype=np.float32)] * rows
    worse = Heard(["ONE"] * 20 + list(references[20:]), logits)
    step = ladder.climb("worse", "quantized", worse, "float")
    assert step.failure.startswith("loses 5 points of word error rate (")
    unclear = Heard(["ONE"] * 5 + ["ONE TWO"] * (rows - 5), logits)
    step = ladder.climb("unclear", "quantized", unclear, "float")
    assert step.failure is None or step.worse_by_interval[0] > 0
    same = ladder.climb("same", "quantized", Heard(list(references), logits), "float")
    assert same.failure is None and same.worse_by == 0.0
