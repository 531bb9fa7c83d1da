"""The search keeps to its budget, tells why it rejects, and mixes precisions where it must."""

from __future__ import annotations

import json
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest

from export.checks.accuracy import AccuracyChecks, CheckRows, Thresholds
from export.checks.ladder import Ladder
from export.checks.latency import Samples, TimedFile, measure_latency, take_turns
from export.checks.text_edges import make_text_edges
from export.quantization.candidates import Candidate
from export.quantization.search import Search, Timing, mixed_candidates, rank_layers
from export.quantization.workshop import TRIAL
from finetune.core.errors import ModelError
from finetune.run_folder import open_run, read_rows

CALL = "export.runtime.classifier:OnnxClassifier.predict"


@pytest.fixture(scope="module")
def texts(make_run):
    run = open_run(make_run("lora", "roberta"))
    return [text for split in ("validation", "test") for text in read_rows(run, split)["text"]]


@pytest.fixture
def start_search(make_workshop, texts, monkeypatch):
    """A function: budget → a search on fp32's own answers as truth; times are made up."""

    def start(max_accuracy_drop: float, p50_ms: dict[str, float] | None = None) -> Search:
        workshop = make_workshop("roberta")
        reference = workshop.answer(workshop.plain, texts)

        class Pretended(nullcontext):
            def __init__(self, folder, precision, rows, *, call, provider):
                path = workshop_path(folder)
                times = {"int4": 9.0, "fp32": 5.0, **(p50_ms or {})}
                self.value = next((ms for part, ms in times.items() if part in path), 2.0)
                super().__init__(self)

            def time(self, begin, end):
                count = end - begin
                return {"batch1_ms": [self.value] * count, "batch8_ms": [8 * self.value] * count}

        monkeypatch.setattr("export.checks.latency.TimedFile", Pretended)
        monkeypatch.setattr("export.quantization.search.TimedFile", Pretended)
        ladder = start_ladder(workshop, texts, reference, max_accuracy_drop)
        return Search(workshop, ladder, Timing(texts[:16], CALL), sensitivity_rows=16)

    return start


def start_ladder(workshop, texts, reference, max_accuracy_drop: float) -> Ladder:
    """A ladder with the fp32 file, whose answers are the truth."""
    rows = CheckRows(tuple(texts), reference.argmax(axis=1), reference)
    thresholds = Thresholds(1e-3, max_accuracy_drop, max_flipped_above_margin=1.0)
    edges = make_text_edges(texts, 32, lambda text: 2 * len(text.split()))
    ladder = Ladder(AccuracyChecks(rows, thresholds, edges), lambda line: None)
    again = partial(workshop.answer, workshop.plain)
    made_up = again([edge.row for edge in edges])
    ladder.climb("onnx-fp32", "reference", reference, edges=made_up, again=again)
    return ladder


def workshop_path(folder) -> str:
    path = json.loads((folder / "manifest.json").read_text("utf-8"))["files"][TRIAL]["path"]
    if path == "onnx/model.onnx":
        return "fp32"
    return path.removeprefix(".work/").removesuffix("/model.onnx")


def test_the_fastest_within_the_budget_is_chosen_and_everything_is_told(start_search):
    search = start_search(1.0, {"int8-dynamic-plain": 1.0})
    kept = search.run(["int8-dynamic", "int4", "fp16"])
    table = {row["name"]: row for row in search.table(kept)}
    assert set(table) == {
        "fp32",
        "int8-dynamic-fused",
        "int8-dynamic-plain",
        "int4",
        "int4-block128",
        "fp16",
    }
    assert "no CPU kernels" in table["fp16"]["verdict"]
    chosen = [name for name, row in table.items() if row["verdict"] == "chosen"]
    assert chosen == ["int8-dynamic-plain"], "the tiny tables are not worth a trial in int8"
    assert kept[0].path.is_file()
    finalists = {name for name, row in table.items() if row.get("processes") == 3}
    assert {"int8-dynamic-fused", "int8-dynamic-plain"} <= finalists
    assert finalists.isdisjoint({"fp32", "int4", "int4-block128"}), "far slower at first sight"
    for name, row in table.items():
        if name != "fp16":
            low, high = row["accuracy_interval"]
            assert low <= row["accuracy"] <= high + 1e-9
            assert row["p50_batch8_ms"] > row["p50_batch1_ms"] > 0
            assert row["megabytes"] > 0
    assert table["fp32"]["difference"] == 0


def test_over_budget_candidates_are_rejected_and_mixed_until_one_fits(start_search):
    search = start_search(0.0)
    kept = search.run(["int4"])
    table = {row["name"]: row for row in search.table(kept)}
    pure = [row for name, row in table.items() if name in ("int4", "int4-block128")]
    assert all(row["flipped"] for row in pure), "without flips the test proves nothing"
    assert all("loses " in row["verdict"] for row in pure)
    mixed = next(row for name, row in table.items() if name.endswith("-float1"))
    assert mixed["float_layers"] in ("0", "1")
    assert kept[0].rejected is None
    assert table[kept[0].candidate.name]["difference"] >= 0


def test_layers_are_ranked_by_what_they_do_alone(make_workshop, texts):
    workshop = make_workshop("roberta")
    reference = workshop.answer(workshop.plain, texts[:16])
    ladder = start_ladder(workshop, texts[:16], reference, 1.0)
    ranking = rank_layers(Candidate("int4"), workshop, ladder, 16)
    assert {layer for layer, _ in ranking} == {"0", "1"}
    assert ranking[0][1] >= ranking[1][1] > 0


def test_mixing_keeps_ever_more_layers_but_never_all():
    ranking = [(str(layer), 1.0 / (layer + 1)) for layer in range(12)]
    counts = [
        len(one.float_layers)
        for one in mixed_candidates(Candidate("int8-dynamic", graph="fused"), ranking)
    ]
    assert counts == [1, 2, 3, 4, 6, 9]
    assert list(mixed_candidates(Candidate("int4"), ranking[:1])) == []


def test_a_candidate_that_cannot_be_made_is_a_row_of_the_table(start_search, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("out of registers")

    search = start_search(1.0)
    monkeypatch.setattr("export.quantization.candidates.quantize_weights", broken)
    kept = search.run(["int4"])
    rows = search.table(kept)
    assert rows[1] == {"name": "int4", "verdict": "RuntimeError: out of registers"}
    assert kept[0].candidate.precision == "fp32"


def test_the_final_round_decides_not_the_first_look(start_search, monkeypatch):
    search = start_search(1.0)
    monkeypatch.setattr(
        "export.quantization.search.measure_latency", first_look(fast="int8-dynamic-fused")
    )
    chosen = search.run(["int8-dynamic"])[0]
    assert chosen.candidate.name.startswith("int8-dynamic-fused")

    search = start_search(1.0, {"int8-dynamic-plain": 1.0})
    monkeypatch.setattr(
        "export.quantization.search.measure_latency", first_look(fast="int8-dynamic-fused")
    )
    kept = search.run(["int8-dynamic"])
    assert kept[0].candidate.name == "int8-dynamic-plain"
    table = {row["name"]: row for row in search.table(kept)}
    assert table["int8-dynamic-fused"]["processes"] == 3
    assert table["int8-dynamic-fused"]["verdict"] == "slower than the chosen one"
    assert (table["fp32"]["processes"], table["fp32"]["p50_batch1_ms"]) == (1, 9.0)


def first_look(fast: str):
    """A measure_latency for which one file takes 1 ms, two 1.5 ms, fp32 9 ms."""

    def measure(folder, precision, rows, samples, *, call, provider):
        path = workshop_path(folder)
        value = 9.0 if path == "fp32" else 1.0 if fast in path else 1.5
        samples.add({"batch1_ms": [value] * len(rows), "batch8_ms": [8 * value] * 2})
        samples.processes += 1

    return measure


def test_latency_is_measured_in_another_process(make_workshop, texts):
    workshop, samples = make_workshop("roberta"), Samples()
    workshop.show(workshop.plain)
    measure_latency(workshop.folder, TRIAL, texts[:10], samples, call=CALL)
    assert len(samples.batch1_ms) == 10
    assert len(samples.batch8_ms) == 2
    assert np.all(np.array(samples.batch1_ms) > 0)
    assert samples.processes == 1


def test_files_take_turns(make_workshop, texts, monkeypatch):
    monkeypatch.setattr("export.checks.latency.TURN", 10)
    workshop, samples = make_workshop("roberta"), [Samples(), Samples()]
    workshop.show(workshop.plain)
    with (
        TimedFile(workshop.folder, TRIAL, texts[:12], call=CALL) as one,
        TimedFile(workshop.folder, TRIAL, texts[:12], call=CALL) as other,
    ):
        take_turns([one, other], samples, 12, passes=2, seed=(0,))
    for taken in samples:
        assert len(taken.batch1_ms) == 24
        assert len(taken.batch8_ms) == 2 * (2 + 1)  # turns of ten and of two texts
        assert taken.processes == 1


def test_a_file_that_cannot_be_opened_is_told(make_workshop, texts):
    workshop = make_workshop("roberta")
    with pytest.raises(ModelError, match=r"nothing could not be measured(.|\n)*nothing"):
        TimedFile(workshop.folder, "nothing", texts, call=CALL)
