"""An artifact whose checks failed is measured and shown, and never named as the one to take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_folder import csv_rows, write_results
from results_factory import make_results
from speech_results_factory import make_speech_results, read_older
from typer.testing import CliRunner

from bench.comparing.compare import compare_results
from bench.report.selection import select_variant
from bench.report.summary import summarise
from bench.report.verdict import reach_verdict
from bench.report.writing import write_report
from bench.results.records import Results
from kotune import app

FAST = ("full-onnx-int8", "lora-onnx-int8")
MARK = "(failed export)"


def results_with_failed(*names: str, **changes: Any) -> dict[str, Any]:
    """Results of which the named variants are of an artifact that failed its checks."""
    content = make_results(failed=False, **changes)
    for one in content["variants"]:
        if one["name"] in names:
            one["export_checks"] = "failed"
    return content


def read(content: dict[str, Any]) -> Results:
    return Results.model_validate(content)


def test_the_fastest_is_not_headlined_when_its_export_failed() -> None:
    sound = reach_verdict(summarise(read(results_with_failed())))
    assert sound.chosen in FAST
    found = reach_verdict(summarise(read(results_with_failed(*FAST))))
    assert found.chosen == "lora-onnx-fp32"
    assert "int8" not in found.headline
    told = " ".join(found.details)
    for name in FAST:
        assert f"`{name}` was measured, but its export failed its checks" in told
    assert f"ties with it on speed `{FAST[0]}`" not in told


def test_no_condition_is_satisfied_by_a_failed_export(tmp_path: Path) -> None:
    summary = summarise(read(results_with_failed(*FAST)))
    found = select_variant(summary, "p50_ms<=1000ms")
    assert found.chosen not in FAST
    assert f"`{FAST[1]}` fails the checks of its export." in found.sentences
    assert select_variant(summary, "p50_ms<=8ms, accuracy>=86%").chosen is None
    write_results(tmp_path, results_with_failed(*FAST))
    words = ["report", str(tmp_path), "--where", "p50_ms<=8ms, accuracy>=86%"]
    assert CliRunner().invoke(app, words).exit_code == 1


def test_a_failed_export_is_no_baseline_of_a_claim() -> None:
    content = results_with_failed("full-pytorch-fp32")
    summary = summarise(read(content))
    assert all(row.speedup is None and row.comparison is None for row in summary.rows)
    found = reach_verdict(summary)
    assert found.chosen is None
    assert "is of an export that failed its checks, so nothing is compared" in found.headline


def test_where_all_exports_failed_nothing_is_recommended() -> None:
    content = results_with_failed(*FAST)
    content["variants"] = [one for one in content["variants"] if one["name"] in FAST]
    found = reach_verdict(summarise(read({**content, "baseline": FAST[0]})))
    assert found.headline.startswith("Nothing can be recommended")
    assert found.chosen is None


def test_it_is_marked_wherever_it_stands(tmp_path: Path) -> None:
    content = results_with_failed(*FAST, scenarios=True)
    write_report(write_results(tmp_path, content))
    page, markdown, table = (
        (tmp_path / name).read_text("utf-8") for name in ("report.html", "report.md", "results.tex")
    )
    for name in FAST:
        assert f"`{name}` **failed export**" in markdown
        assert f"{name} {MARK}" in table
        assert csv_rows(tmp_path)[name]["export_failed"] == "1"
        assert csv_rows(tmp_path)[name]["on_front"] == "0"
        for picture in ("trade_off", "latencies", "footprints", "lengths"):
            drawn = (tmp_path / "plots" / f"{picture}.svg").read_text("utf-8")
            assert f">{name} {MARK}<" in drawn, picture
            assert f">{name}<" not in drawn, picture
        row = page.split(f'<tr data-variant="{name}"')[1].split("</tr>")[0]
        assert "failed export" in row
        assert "best" not in row
        server = markdown.split("## Server")[1].split("##")[0]
        assert f"{name} {MARK}" in server.replace("\\", "")
    assert csv_rows(tmp_path)["lora-onnx-fp32"]["export_failed"] == "0"


def test_results_older_than_the_key_say_it_in_their_description() -> None:
    content = make_results(failed=False)
    for one in content["variants"]:
        if one["name"] in FAST:
            one["description"] += "; its export checks FAILED"
    assert {row.name for row in summarise(read(content)).rows if row.export_failed} == set(FAST)


def test_an_export_that_fails_now_is_a_regression() -> None:
    old, new = read(results_with_failed()), read(results_with_failed(*FAST))
    found = compare_results(old, new)
    assert set(found.regressions) >= {f"{name}: failed export" for name in FAST}
    again = compare_results(new, new)
    assert {one.status for one in again.variants if one.name in FAST} == {"failed before"}
    assert again.regressions == ()


def test_a_speech_export_that_failed_is_not_headlined(tmp_path: Path) -> None:
    content = make_speech_results(base=False, failed=False)
    chosen = reach_verdict(summarise(read_older(content))).headline.split("`")[1]
    for one in content["variants"]:
        if one["name"] == chosen:
            one["export_checks"] = "failed"
    summary = summarise(read_older(content))
    assert chosen not in reach_verdict(summary).headline
    assert not next(row for row in summary.rows if row.name == chosen).on_front
    write_report(write_results(tmp_path, content))
    markdown = (tmp_path / "report.md").read_text("utf-8")
    assert f"`{chosen}` is of an export that failed its checks" in markdown
    assert f"| {chosen} {MARK} |" in markdown
    assert csv_rows(tmp_path)[chosen]["export_failed"] == "1"
    for picture in ("trade_off", "lengths", "footprints"):
        assert f"{chosen} {MARK}" in (tmp_path / "plots" / f"{picture}.svg").read_text("utf-8")


@pytest.mark.parametrize("changed", [0, 5])
def test_a_speech_difference_is_called_one_where_the_interval_shows_it(changed: int) -> None:
    content = make_speech_results(base=False, failed=False)
    base, *others = content["variants"]
    content["variants"] = [base, *(one for one in others if one["runtime"] == "openvino")]
    for one in content["variants"][1:]:
        one["transcripts"] = [
            f"{text} OH" if place < changed and place % 2 == 0 else text
            for place, text in enumerate(base["transcripts"])
        ]
    content["settings"]["max_wer_increase"] = 0.5
    told = reach_verdict(summarise(read_older(content))).headline
    if changed:
        assert "no difference of word error rate shown" in told
    else:
        assert "changes no transcript" in told
