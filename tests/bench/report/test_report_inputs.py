"""Unusual results make a report, results that do not hold together are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from report_folder import Results, csv_rows, report_files, write_results
from results_factory import make_results

from bench.report.writing import write_report
from finetune.core.errors import FolderError


def _one(content: Results) -> None:
    content["variants"] = content["variants"][:1]


def _all_failed(content: Results) -> None:
    content["variants"] = [{**content["variants"][-1], "name": content["baseline"]}]


def _baseline_failed(content: Results) -> None:
    content["variants"][0] = {**content["variants"][-1], "name": content["baseline"]}


def _no_latency(content: Results) -> None:
    for variant in content["variants"]:
        variant |= {"latency": [], "throughput": []}


def _bare(content: Results) -> None:
    content |= {"curves": {}, "ladders": {}, "settings": {}, "environment": {}, "commands": []}
    content |= {"note": None, "data": {"description": "rows"}, "seen_in_training": []}
    for variant in content["variants"]:
        variant |= {"throughput": [], "size_bytes": None, "peak_memory_bytes": [], "load_s": []}
        variant["latency"] = [{"process": 0, "round": 0, "samples_ms": [2.0]}]


def _three_classes(content: Results) -> None:
    content["labels"] = ["부정", "중립", "긍정"]
    content["truth"][0] = 2


def _same_answers(content: Results) -> None:
    for variant in content["variants"][:-1]:
        variant["predicted"] = content["truth"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_one, "is right on"),
        (_all_failed, "No variant finished"),
        (_baseline_failed, "failed, so nothing is compared with it"),
        (_no_latency, "is right most often"),
        (_bare, "Nothing is measurably faster than"),
        (_three_classes, "times as fast as"),
        (_same_answers, "gives the same answers"),
    ],
)
def test_unusual_results_make_a_report_too(
    tmp_path: Path, change: Callable[[Results], None], sentence: str
) -> None:
    content = make_results(rows=300)
    change(content)
    write_report(write_results(tmp_path, content))
    assert sentence in (tmp_path / "report.html").read_text("utf-8")
    assert sentence in (tmp_path / "report.md").read_text("utf-8")
    assert csv_rows(tmp_path)


def _drop_name(content: Results) -> None:
    del content["name"]


def _foreign(content: Results) -> None:
    content["schema"] = "kotune.run/1"


def _two_names(content: Results) -> None:
    content["variants"][1]["name"] = content["variants"][0]["name"]


def _short(content: Results) -> None:
    content["variants"][1]["predicted"] = [0, 1]


def _unknown_class(content: Results) -> None:
    content["truth"][0] = 7


def _no_baseline(content: Results) -> None:
    content["baseline"] = "full-onnx-fp64"


def _negative(content: Results) -> None:
    content["variants"][0]["latency"][0]["samples_ms"][0] = -1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop_name, "name: nothing"),
        (_foreign, "another kind or version"),
        (_two_names, "occurs twice"),
        (_short, "2 predictions for 50 rows"),
        (_unknown_class, "class ids must lie in 0 … 1"),
        (_no_baseline, "not among the variants"),
        (_negative, "latency -> 0 -> samples_ms -> 0"),
    ],
)
def test_results_that_do_not_hold_together_are_refused(
    tmp_path: Path, change: Callable[[Results], None], words: str
) -> None:
    content = make_results(rows=50, variants=2)
    change(content)
    with pytest.raises(FolderError, match=re.escape(words)):
        write_report(write_results(tmp_path, content))
    assert report_files(tmp_path) == {}
