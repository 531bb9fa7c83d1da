"""The figures behind a report: numbers as text, verdicts, label places, axes."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from results_factory import make_results

from bench.report import text
from bench.report.notes import method_notes
from bench.report.pictures.frame import split_strays
from bench.report.pictures.labels import Anchor, Box, place_labels, spread
from bench.report.pictures.scatter import draw_trade_off, trade_off_points
from bench.report.pictures.svg import Scale, text_width
from bench.report.summary import Summary, summarise
from bench.report.tables import facts
from bench.report.tables.columns import build_table
from bench.report.verdict import reach_verdict
from bench.results.records import Results


def _summary(content: dict[str, Any]) -> Summary:
    return summarise(Results.model_validate(content))


@pytest.fixture(scope="module")
def summary() -> Summary:
    return _summary(make_results())


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (text.significant(0.41234), "0.412"),
        (text.significant(1214), "1,214"),
        (text.significant(-2.5), "−2.50"),
        (text.points(-0.0031), "−0.31"),
        (text.points(0.00001), "0.00"),
        (text.points(0.0007), "+0.07"),
        (text.percent(0.89424), "89.42"),
        (text.bytes_with_unit(443_000_000), "443 MB"),
        (text.bytes_with_unit(1_214_000_000), "1.21 GB"),
        (text.duration(1834), "30.6 min"),
        (text.scientific(4.1e-6), "4.1×10⁻⁶"),
        (text.scientific(0.412), "0.412"),
        (text.p_value(0.0001), "p < 0.001"),
        (text.plural(1, "process", "es"), "1 process"),
        (text.plural(3, "process", "es"), "3 processes"),
        (text.listed(["a", "b", "c"]), "a, b and c"),
        (text.span("−0.39", "+0.02"), "−0.39 … +0.02"),
        (text.tick(0.5), "0.5"),
        (text.tick(2000), "2,000"),
    ],
)
def test_numbers_are_written_for_readers(written: str, expected: str) -> None:
    assert written == expected


def test_nested_records_become_pairs() -> None:
    record = {"a": {"size_bytes": 2_000_000, "none": None}, "ok": True, "n": [{"x": 1}, {"x": 2}]}
    assert facts.flatten(record) == [("a · size", "2.00 MB"), ("ok", "yes"), ("n", "x 1, x 2")]


def test_the_verdict_is_the_fastest_that_keeps_accuracy(summary: Summary) -> None:
    verdict = reach_verdict(summary)
    assert verdict.chosen in ("lora-onnx-int8", "full-onnx-int8")
    assert "times as fast as `full-pytorch-fp32`" in verdict.headline
    told = " ".join(verdict.details)
    assert "Faster still, but `tfidf-sklearn-fp64`" in told
    assert "`qlora-onnx-int8` failed" in told
    assert [change.label for change in verdict.changes][:2] == ["Accuracy", "p50 latency"]


def test_ties_on_speed_are_said(summary: Summary) -> None:
    content = make_results()
    chosen = reach_verdict(summary).chosen
    twin = next(v for v in content["variants"] if v["name"] == chosen)
    content["variants"].append({**twin, "name": "twin-onnx-int8"})
    verdict = reach_verdict(_summary(content))
    told = next(sentence for sentence in verdict.details if "with it on speed" in sentence)
    assert {"`twin-onnx-int8`", f"`{chosen}`"} & set(told.replace(",", "").split())


def test_of_equally_fast_variants_the_more_accurate_is_chosen() -> None:
    content = make_results(variants=1, failed=False)
    base = content["variants"][0]
    latency = [
        {**part, "samples_ms": [sample / 3 for sample in part["samples_ms"]]}
        for part in base["latency"]
    ]
    worse = [1 - label if row % 300 == 0 else label for row, label in enumerate(base["predicted"])]
    quick = {**base, "latency": latency}
    content["variants"] += [
        {**quick, "name": "lossy-onnx-int8", "predicted": worse},
        {**quick, "name": "exact-onnx-int8"},
    ]
    assert reach_verdict(_summary(content)).chosen == "exact-onnx-int8"


def test_more_accuracy_at_the_same_speed_is_a_gain() -> None:
    content = make_results(variants=1, failed=False)
    base = content["variants"][0]
    content["variants"].append({**base, "name": "lora-merged-fp32", "predicted": content["truth"]})
    headline = reach_verdict(_summary(content)).headline
    assert headline.startswith("`lora-merged-fp32` gains 10.40 points of accuracy over")
    assert headline.endswith("and is not measurably faster.")


def test_without_anything_better_the_verdict_is_the_baseline() -> None:
    content = make_results(variants=3, failed=False)
    verdict = reach_verdict(_summary(content))
    assert verdict.chosen == "full-pytorch-fp32"
    assert verdict.changes == ()
    assert verdict.headline.startswith("Nothing is measurably faster")


def test_a_tie_of_the_table_is_no_loss_in_the_verdict() -> None:
    """1.33 points lower on 300 rows: too much to recommend, too little to be called a loss."""
    content = make_results(rows=300, variants=1, failed=False)
    base = content["variants"][0]
    predicted = list(base["predicted"])
    right = [i for i, (a, b) in enumerate(zip(predicted, content["truth"], strict=True)) if a == b]
    for index in right[:4]:
        predicted[index] = 1 - predicted[index]
    faster = [
        {**part, "samples_ms": [sample / 4 for sample in part["samples_ms"]]}
        for part in base["latency"]
    ]
    quick = {**base, "name": "full-onnx-int8", "predicted": predicted, "latency": faster}
    content["variants"].append(quick)
    summary = _summary(content)
    assert next(row for row in summary.rows if not row.is_baseline).comparison.finding == "tie"
    verdict = reach_verdict(summary)
    told = " ".join([verdict.headline, *verdict.details])
    assert verdict.chosen == "full-pytorch-fp32"
    assert "loses" not in told
    assert "is 1.33 points lower on these rows: no difference is shown" in told


def test_few_rows_do_not_crown_a_worse_variant() -> None:
    content = make_results(rows=60)
    verdict = reach_verdict(_summary(content))
    assert verdict.chosen != "tfidf-sklearn-fp64"


def test_a_significant_but_small_loss_is_named_with_its_price() -> None:
    content = make_results(rows=20_000, variants=1, failed=False)
    base = content["variants"][0]
    predicted = list(base["predicted"])
    wrong = [i for i, (a, b) in enumerate(zip(predicted, content["truth"], strict=True)) if a == b]
    for index in wrong[:40]:
        predicted[index] = 1 - predicted[index]
    faster = [
        {**part, "samples_ms": [sample / 4 for sample in part["samples_ms"]]}
        for part in base["latency"]
    ]
    quick = {**base, "name": "full-onnx-int8", "predicted": predicted, "latency": faster}
    content["variants"].append(quick)
    verdict = reach_verdict(_summary(content))
    assert verdict.chosen == "full-onnx-int8"
    assert "4.00 times as fast" in verdict.headline
    assert "loses 0.20 points of accuracy" in verdict.headline


def test_the_baseline_twice_is_the_noise_floor_and_no_contender() -> None:
    content = make_results(noise_pair=True)
    for variant in content["variants"]:
        if variant["name"] == "full-pytorch-fp32-again":
            for part in variant["latency"]:
                part["samples_ms"] = [1.5 * sample for sample in part["samples_ms"]]
    found = _summary(content)
    pair = found.noise_pair
    assert pair is not None
    assert pair.name not in {row.name for row in found.contenders}
    assert not pair.on_front
    assert pair.comparison is None
    findings = {row.name: row.speed_finding for row in found.measured}
    assert findings["lora-pytorch-fp32"] == "tie"
    assert findings["lora-onnx-int8"] == "faster"
    assert any("measured a second time" in note for note in method_notes(found))
    plot = draw_trade_off(found, 1200)
    assert plot is not None
    assert "-again" not in plot.svg


def test_disturbances_are_told() -> None:
    content = make_results(rows=50, variants=2)
    content["settings"] |= {"load_average": 3.2, "memory_blocks": [[["a"], ["b"]]], "processes": 1}
    assert "priority" not in " ".join(method_notes(_summary(content)))
    content["settings"]["priority"] = -20
    told = " ".join(method_notes(_summary(content)))
    assert "load average 3.2" in told
    assert "took turns in blocks" in told
    assert "1 fresh process each" in told
    assert "leave out what differs from start to start" in told
    assert "priority -20, nice" in told


def test_a_table_without_figures_has_no_columns() -> None:
    keys = {column.key for column in build_table(_summary(make_results(accuracy=False))).columns}
    assert keys.isdisjoint({"accuracy", "accuracy_unseen", "difference", "f1", "vram"})


def test_the_front_is_what_nothing_beats(summary: Summary) -> None:
    assert "tfidf-sklearn-fp64" in {row.name for row in summary.measured if row.on_front}
    for row in summary.measured:
        beaten = any(
            other.accuracy.value >= row.accuracy.value
            and other.latency.p50_ms <= row.latency.p50_ms
            and other is not row
            and (other.accuracy.value, other.latency.p50_ms)
            != (row.accuracy.value, row.latency.p50_ms)
            for other in summary.measured
            if other.accuracy and other.latency and row.accuracy and row.latency
        )
        assert row.on_front is not beaten


def test_one_far_variant_is_told_in_the_corner(summary: Summary) -> None:
    shown, strays = split_strays(*trade_off_points(summary))
    assert [row.name for row in strays] == ["tfidf-sklearn-fp64"]
    assert len(shown) == len(summary.measured) - 1
    plot = draw_trade_off(summary, 1200)
    assert plot is not None
    assert "↙ tfidf-sklearn-fp64" in plot.svg


@pytest.mark.parametrize(
    "scale",
    [
        Scale(0.3, 70, 0, 900, log=True),
        Scale(21, 27, 0, 900, log=True),
        Scale(0.0895, 0.0901, 0, 400),
        Scale(0, 625, 0, 300),
        Scale(1e-3, 2e5, 0, 300, log=True),
        Scale(2e-4, 1e6, 0, 900, log=True),
    ],
)
def test_ticks_are_inside_and_neither_few_nor_many(scale: Scale) -> None:
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 16
    assert all(scale.low <= tick <= scale.high for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_hangul_is_wider_than_latin() -> None:
    assert text_width("영화", 12) == pytest.approx(24)
    assert text_width("il", 12) < text_width("mm", 12)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(40, 960), st.floats(40, 440), st.floats(4, 16)), min_size=1, max_size=7
    )
)
def test_labels_stay_inside_and_do_not_cover_each_other(
    spots: list[tuple[float, float, float]],
) -> None:
    frame = Box(0, 0, 1000, 480)
    boxes = place_labels([Anchor(x, y, radius, 120, 28) for x, y, radius in spots], frame)
    for box in boxes:
        assert box.left >= 0
        assert box.top >= 0
        assert box.right <= 1000
        assert box.bottom <= 480
    for one, other in combinations(boxes, 2):
        assert one.overlap(other) == 0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_spread_keeps_order_gap_and_bounds(wanted: list[float]) -> None:
    places = spread(wanted, 15, 0, 100)
    ordered = sorted(zip(wanted, places, strict=True))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in places)
    for (_, one), (_, other) in pairwise(ordered):
        assert abs(other - one) >= 15 - 1e-6
