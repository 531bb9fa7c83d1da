"""Two results side by side: pairs, regressions, machines that differ, and the gate."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_folder import write_results
from results_factory import make_results
from speech_results_factory import make_results_today, make_speech_results, read_older
from typer.testing import CliRunner

from bench.comparing.command import comparison_lines
from bench.comparing.compare import Comparison, compare_results, unpaired_difference
from bench.results.records import Results
from bench.statistics.decisions import Estimate
from bench.statistics.latency import ratio_of_ratios
from finetune.core.errors import FolderError, GateError
from finetune.metrics.classification import paired_difference
from kotune import app

CHANGED = "lora-onnx-int8"


KEPT = (
    "full-pytorch-fp32",
    "full-pytorch-fp32-again",
    "lora-onnx-fp32",
    CHANGED,
    "qlora-onnx-int8",
)


@pytest.fixture(scope="module")
def old() -> dict[str, Any]:
    return smaller(make_results(noise_pair=True))


def smaller(content: dict[str, Any]) -> dict[str, Any]:
    """A few variants with a third of their reviews: enough to tell 30 % from noise."""
    content["variants"] = [one for one in content["variants"] if one["name"] in KEPT]
    for variant in content["variants"]:
        for entry in variant["latency"]:
            entry["samples_ms"] = entry["samples_ms"][:20]
    return content


def compare(old: dict[str, Any], new: dict[str, Any], **options: Any) -> Comparison:
    return compare_results(Results.model_validate(old), Results.model_validate(new), **options)


def changed(old: dict[str, Any], factor: float = 1.0, wrong: int = 0) -> dict[str, Any]:
    """One variant slower by ``factor``, and wrong on the first ``wrong`` rows it had right."""
    new = copy.deepcopy(old)
    variant = next(one for one in new["variants"] if one["name"] == CHANGED)
    for entry in variant["latency"]:
        entry["samples_ms"] = [value * factor for value in entry["samples_ms"]]
    right = [
        i for i, (a, b) in enumerate(zip(variant["predicted"], new["truth"], strict=True)) if a == b
    ]
    for row in right[:wrong]:
        variant["predicted"][row] = 1 - variant["predicted"][row]
    return new


def figure(found: Comparison, name: str, kind: str) -> Any:
    variant = next(one for one in found.variants if one.name == name)
    return next(one for one in variant.changes if one.figure == kind)


def test_the_same_results_show_no_difference(old: dict[str, Any]) -> None:
    found = compare(old, old)
    assert found.regressions == ()
    assert {c.finding for one in found.variants for c in one.changes} == {"tie"}
    assert not any(one.name.endswith("-again") for one in found.variants)
    failed = next(one for one in found.variants if one.name == "qlora-onnx-int8")
    assert failed.status == "failed before"


def test_a_slower_variant_is_found_and_only_it(old: dict[str, Any]) -> None:
    found = compare(old, changed(old, 1.3))
    assert found.regressions == (f"{CHANGED}: p50", f"{CHANGED}: p95")
    change = figure(found, CHANGED, "p50")
    assert change.change.value == pytest.approx(1.3)
    assert 1 < change.change.low < 1.3 < change.change.high
    assert change.basis == "milliseconds"
    assert compare(old, changed(old, 1.3), tolerance=0.5).regressions == ()
    assert figure(compare(changed(old, 1.3), old), CHANGED, "p50").finding == "better"


def test_a_slowdown_within_the_noise_floor_is_a_tie(old: dict[str, Any]) -> None:
    noisy = copy.deepcopy(old)
    again = next(one for one in noisy["variants"] if one["name"].endswith("-again"))
    for entry in again["latency"]:
        entry["samples_ms"] = [value * 1.5 for value in entry["samples_ms"]]
    found = compare(noisy, changed(old, 1.3))
    assert found.noise_floor > 0.4
    assert found.regressions == ()


def test_a_tail_that_grew_is_found_though_the_median_did_not(old: dict[str, Any]) -> None:
    new = copy.deepcopy(old)
    variant = next(one for one in new["variants"] if one["name"] == CHANGED)
    for entry in variant["latency"]:
        slowest = sorted(entry["samples_ms"])[-4]
        entry["samples_ms"] = [
            value * 3 if value >= slowest else value for value in entry["samples_ms"]
        ]
    assert compare(old, new).regressions == (f"{CHANGED}: p95",)


def test_f1_is_judged_where_accuracy_is(old: dict[str, Any]) -> None:
    found = compare(old, changed(old, wrong=60))
    findings = {
        change.figure: change.finding
        for one in found.variants
        if one.name == CHANGED
        for change in one.changes
    }
    assert findings["f1_macro"] == findings["accuracy"] == "worse"
    others = [one for one in found.variants if one.name != CHANGED]
    assert all(
        change.finding == "tie"
        for one in others
        for change in one.changes
        if change.figure in ("f1_macro", "p95")
    )


def test_accuracy_is_paired_on_the_same_rows(old: dict[str, Any]) -> None:
    new = changed(old, wrong=40)
    change = figure(compare(old, new), CHANGED, "accuracy")
    truth = np.array(old["truth"])
    right = [
        np.array(next(v for v in one["variants"] if v["name"] == CHANGED)["predicted"]) == truth
        for one in (new, old)
    ]
    expected = paired_difference(*right)
    assert (change.basis, change.finding) == ("same rows", "worse")
    assert change.change.value == expected.difference == -40 / len(truth)
    assert (change.change.low, change.change.high) == expected.interval
    assert change.p_adjusted > expected.p_value  # Holm over all variants


def test_other_rows_are_compared_unpaired(old: dict[str, Any]) -> None:
    other = smaller(make_results(rows=1_500, seed=3, noise_pair=True))
    found = compare(old, other)
    assert figure(found, CHANGED, "accuracy").basis == "different rows"
    assert any("unpaired" in words for words in found.cautions)


def test_the_unpaired_interval_is_newcombes_worked_example() -> None:
    """Newcombe 1998, Statistics in Medicine 17:873, table II (a): 56/70 - 48/80, method 10."""
    right, base = np.arange(70) < 56, np.arange(80) < 48
    found, p = unpaired_difference(right, base)
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=5e-5)
    assert found.high == pytest.approx(0.3339, abs=5e-5)
    assert 0.001 < p < 0.05


def test_another_machine_is_compared_by_its_own_baseline(old: dict[str, Any]) -> None:
    """Everything twice as slow is another machine, not a regression; one variant more so is."""
    new = changed(old, 1.3)
    new["environment"]["hardware"]["cpu"] = "another"
    for variant in new["variants"]:
        for entry in variant["latency"]:
            entry["samples_ms"] = [2 * value for value in entry["samples_ms"]]
    found = compare(old, new)
    assert found.regressions == (f"{CHANGED}: p50", f"{CHANGED}: p95")
    change = figure(found, CHANGED, "p50")
    assert change.basis == "relative to the baseline"
    assert change.change.value == pytest.approx(1.3)
    assert any("Hardware" in words for words in found.cautions)


def test_a_variant_that_is_gone_or_failed_is_a_regression(old: dict[str, Any]) -> None:
    new = copy.deepcopy(old)
    new["variants"] = [one for one in new["variants"] if one["name"] != CHANGED]
    broken = next(one for one in new["variants"] if one["name"] == "lora-onnx-fp32")
    broken |= {"status": "failed", "reason": "no"}
    found = compare(old, new)
    assert set(found.regressions) == {f"{CHANGED}: missing", "lora-onnx-fp32: failed"}
    assert next(one for one in compare(new, old).variants if one.name == CHANGED).status == "added"


def test_a_bigger_file_is_a_regression(old: dict[str, Any]) -> None:
    new = copy.deepcopy(old)
    next(one for one in new["variants"] if one["name"] == CHANGED)["size_bytes"] *= 2
    assert compare(old, new).regressions == (f"{CHANGED}: size",)


def test_a_ratio_of_ratios_adds_the_errors_of_both() -> None:
    one, other = Estimate(2.0, 1.8, 2.2), Estimate(4.0, 4.0, 4.0)
    exact = ratio_of_ratios(one, other)
    assert (exact.value, exact.low, exact.high) == pytest.approx((0.5, 0.45, 0.55))
    wider = ratio_of_ratios(one, Estimate(4.0, 3.6, 4.4))
    assert wider.low < 0.45 < 0.55 < wider.high
    assert ratio_of_ratios(one, Estimate(4.0, None, None)).low is None


def test_the_command_prints_json_and_the_gate_fails(old: dict[str, Any], tmp_path: Path) -> None:
    one = write_results(tmp_path / "old", old)
    other = write_results(tmp_path / "new", changed(old, 1.3))
    runner = CliRunner()
    arguments = ["compare", str(one), str(other / "results.json")]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert f"| {CHANGED} | p50 |" in done.output
    told = json.loads(runner.invoke(app, [*arguments, "--json"]).output)
    assert told["schema"] == "kotune.comparison/1"
    assert told["regressions"] == [f"{CHANGED}: p50", f"{CHANGED}: p95"]
    gated = runner.invoke(app, [*arguments, "--gate"])
    assert isinstance(gated.exception, GateError)
    assert runner.invoke(app, [*arguments, "--gate", "--tolerance", "50"]).exit_code == 0
    assert runner.invoke(app, ["compare", str(one), str(one), "--gate"]).exit_code == 0


def test_speech_is_compared_by_error_rate_and_at_every_length() -> None:
    old = make_results_today(failed=False, base=False)
    new = make_results_today(failed=False, base=False, slower=1.5)
    worse = next(one for one in new["variants"] if one["name"] == "full-onnx-int8")
    worse["transcripts"] = [f"{one} OH OH" for one in worse["transcripts"]]
    found = compare_results(Results.model_validate(old), Results.model_validate(new))
    changes = {(one.name, c.figure): c for one in found.variants for c in one.changes}
    assert changes["full-onnx-int8", "word error rate"].finding == "worse"
    assert changes["full-onnx-int8", "word error rate"].basis == "same recordings"
    assert changes["full-onnx-fp32", "word error rate"].finding == "tie"
    for length in ("1", "5", "15", "30"):
        change = changes["full-onnx-fp32", f"p50 at {length} s"]
        assert (change.finding, change.basis) == ("worse", "milliseconds")
        assert change.change.value == pytest.approx(1.5)
        assert changes["full-pytorch-fp32", f"p50 at {length} s"].finding == "tie"
    lines = "\n".join(comparison_lines(found))
    assert "| full-onnx-int8 | word error rate |" in lines and "p50 at 30 s" in lines


def test_speech_of_the_version_before_is_compared_with_todays() -> None:
    old = read_older(make_speech_results(failed=False))
    new = Results.model_validate(make_results_today(failed=False))
    found = compare_results(old, new)
    names = {one.name for one in old.variants}
    assert {one.status for one in found.variants if one.name in names} == {"compared"}
    assert all(c.finding == "tie" for one in found.variants for c in one.changes)
    with pytest.raises(FolderError, match="different tasks"):
        compare_results(old, Results.model_validate(make_results()))


def test_other_recordings_are_compared_as_two_samples() -> None:
    old, new = (make_results_today(failed=False, base=False) for _ in range(2))
    new["references"] = [f"{text} TWO" for text in new["references"]]
    found = compare_results(Results.model_validate(old), Results.model_validate(new))
    same = next(one for one in found.variants if one.name == "full-onnx-fp32")
    (change,) = [one for one in same.changes if one.figure == "word error rate"]
    assert (change.basis, change.finding) == ("different recordings", "worse")
    assert 0 < change.change.low < change.change.value < change.change.high
    assert any("compared unpaired" in told for told in found.cautions)
