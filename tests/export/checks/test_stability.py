"""Whether an answer depends on its company is measured, and told apart from what does not."""

from __future__ import annotations

import numpy as np
import pytest

from export.checks.stability import measure_stability, plan_ways
from finetune.run_folder import open_run, read_rows


@pytest.fixture(scope="module")
def texts(make_run):
    return read_rows(open_run(make_run("lora", "roberta")), "validation")["text"].tolist()[:40]


def test_float_answers_alone_and_in_company_alike(make_workshop, texts):
    workshop = make_workshop("roberta")
    opened = workshop.draft.opened
    measured = measure_stability(workshop.folder, opened, "fp32", texts, seed=1)
    found = measured.figures
    assert (measured.unstable, measured.of, measured.what) == (0, 40, "labels")
    assert found["rows"] == 40
    assert found["unstable_labels"] == 0
    assert found["largest_logit_difference"] < 1e-4
    assert list(found["ways"]) == [
        "batch-8-sorted",
        "batch-8-shuffled",
        "batch-32-sorted",
        "batch-32-shuffled",
        "padded-32",  # the tiny model's longest
    ]


def test_dynamic_int8_depends_on_its_company(make_workshop, texts):
    workshop = make_workshop("roberta")
    opened = workshop.draft.opened
    measured = measure_stability(workshop.folder, opened, "int8", texts, seed=1)
    found = measured.figures
    assert found["largest_logit_difference"] > 1e-3
    largest = [way["largest_logit_difference"] for way in found["ways"].values()]
    assert found["largest_logit_difference"] == max(largest)
    flipped = [way["flipped"] for way in found["ways"].values()]
    assert max(flipped) <= found["unstable_labels"] <= sum(flipped)


def test_every_way_runs_every_row_once():
    lengths = np.random.default_rng(0).integers(3, 90, size=50).tolist()
    ways = plan_ways(lengths, 128, seed=3)
    assert [way.width for way in ways] == [None] * 4 + [64, 128]
    for way in ways:
        assert sorted(way.order) == list(range(50))
    shuffled = next(way for way in ways if way.name == "batch-8-shuffled")
    assert list(shuffled.order) != sorted(shuffled.order)
