"""A speech report from its results.json: every writer, pictures, faults, the page in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from chromium import Page, find_chromium
from markdown_it import MarkdownIt
from page_checks import SEEN_PLOTS, WIDTHS, faults_of
from report_folder import csv_rows, report_files, write_results
from speech_results_factory import (
    LENGTHS,
    make_results_today,
    make_speech_results,
    read_older,
)

from bench.report.pictures.frame import split_strays
from bench.report.pictures.plots import error_points
from bench.report.selection import select_variant
from bench.report.summary import Summary, summarise
from bench.report.verdict import reach_verdict
from bench.report.writing import write_report
from bench.results.records import Results
from finetune.core.errors import FolderError

PICTURES = {"trade_off", "lengths", "lengths_base", "footprints", "curves"}


def summary_of(content: dict) -> Summary:
    return summarise(read_older(content))


def headline(summary: Summary) -> str:
    return reach_verdict(summary).headline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = write_results(tmp_path_factory.mktemp("speech"), make_speech_results())
    assert write_report(place) == place / "report.html"
    return place


def test_a_report_is_three_files_and_its_pictures(folder: Path, tmp_path: Path) -> None:
    files = report_files(folder)
    plots = {f"plots/{name}.svg" for name in PICTURES}
    assert set(files) == {"report.html", "report.md", "results.csv", *plots}
    for name in plots:
        assert ElementTree.fromstring(files[name]).get("role") == "img"
    copy = write_results(tmp_path, json.loads((folder / "results.json").read_text("utf-8")))
    write_report(copy)
    assert report_files(copy) == files


def test_the_page_needs_no_network_and_tells_every_variant(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    assert not re.search(r'(?:src|href)="(?!data:|#)|@import|url\(', page)
    assert set(re.findall(r"https?://[^\"'\s<]+", page)) <= {"http://www.w3.org/2000/svg"}
    for name in ("report.html", "report.md", "results.csv"):
        text = (folder / name).read_text("utf-8")
        assert all(one["name"] in text for one in make_speech_results()["variants"])
        assert "the worker ended with code -9" in text


def test_the_tables_of_the_markdown_are_whole(folder: Path) -> None:
    html = MarkdownIt("commonmark").enable("table").render((folder / "report.md").read_text())
    for table in re.findall(r"<table>.*?</table>", html, re.DOTALL):
        widths = {
            len(re.findall(r"<t[hd]", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.S)
        }
        assert len(widths) == 1


def test_the_csv_holds_every_figure(folder: Path) -> None:
    rows = csv_rows(folder)
    assert len(rows) == len(make_speech_results()["variants"])
    base, quick = rows["full-pytorch-fp32"], rows["full-openvino-int8"]
    assert base["speedup_5s"] == "" and float(quick["speedup_5s"]) > 2
    assert float(quick["speedup_5s_low"]) < float(quick["speedup_5s"])
    for length in LENGTHS:
        p50, factor = float(quick[f"p50_ms_{length}s"]), float(quick[f"rtf_{length}s"])
        assert factor == pytest.approx(p50 / 1000 / length)
    assert float(quick["wer_low"]) <= float(quick["wer"]) <= float(quick["wer_high"])
    assert rows["base-onnx-fp32"]["wer"] == "" and rows["base-openvino-int8"]["failed"] == "1"


def test_the_front_and_the_variant_far_off() -> None:
    summary = summary_of(make_speech_results())
    assert summary.length == "5"
    rows = {row.name: row for row in summary.trained}
    assert rows["full-openvino-int8"].on_front
    assert not rows["full-pytorch-fp32"].on_front  # ONNX fp32 errs alike, and is faster
    shown, strays = split_strays(*error_points(summary))
    assert [one.name for one in strays] == ["full-onnx-int8conv"]
    assert all(one.y.value >= 0 for one in shown)


def test_the_headline_keeps_to_the_limit() -> None:
    content = make_speech_results()
    content["settings"]["max_wer_increase"] = 0.2
    assert headline(summary_of(content)).startswith("`full-openvino-int8` is ")
    content["settings"]["max_wer_increase"] = 0
    assert "full-onnx-int8conv" not in headline(summary_of(content))
    for one in content["variants"]:
        if one["group"] == "full" and one["runtime"] != "pytorch":
            one["transcripts"] = ["NOTHING"] * len(content["references"])
    assert "full-onnx" not in headline(summary_of(content))
    content["variants"][0] |= {"status": "failed", "reason": "gone"}
    assert "the baseline, failed" in headline(summary_of(content))


def test_what_text_has_speech_has(tmp_path: Path) -> None:
    """Noise floor at every length, load, protocol, intervals over processes, conditions."""
    content = make_results_today(failed=False)
    content["settings"]["where"] = "wer_increase<=5pt, p50_ms<=100"
    write_report(write_results(tmp_path, content))
    rows, page = csv_rows(tmp_path), (tmp_path / "report.md").read_text("utf-8")
    for length in LENGTHS:
        floor = float(rows["full-onnx-int8"][f"noise_floor_{length}s"])
        assert floor == pytest.approx(0.01, abs=1e-6)
        assert float(rows["base-onnx-int8"][f"noise_floor_{length}s"]) == floor
    for told in (
        "`full-pytorch-fp32-again` is the baseline measured a second time",
        "Other programs kept 0.70 of 2 cores busy",
        "3 fresh processes each",
        "and processes (speed)",
        "is the fastest variant that satisfies all conditions",
        "for 5 s of audio, word error rate",
    ):
        assert told in page, told
    assert "the machine had other work" in (tmp_path / "report.html").read_text("utf-8")
    assert "`full-onnx-int8conv` fails wer\\_increase" in page


def test_a_difference_within_the_noise_is_no_speed_up() -> None:
    content = make_results_today(failed=False, base=False)
    own = next(one for one in content["variants"] if one["name"] == "full-onnx-fp32")
    base, again = content["variants"][:2]
    for one, factor in ((own, 0.97), (again, 1.2)):
        one["latency"] = [
            {**entry, "samples_ms": [factor * sample for sample in entry["samples_ms"]]}
            for entry in base["latency"]
        ]
    rows = {row.name: row for row in summarise(Results.model_validate(content)).rows}
    assert rows["full-onnx-fp32"].lengths["15"].speed_finding == "tie"
    assert rows["full-onnx-int8"].lengths["15"].speed_finding == "faster"


def test_seeds_of_one_recipe_are_one_variant() -> None:
    content = make_results_today(failed=False, base=False)
    kept = [one for one in content["variants"] if one["precision"] in ("fp32", "int8")]
    content["variants"] = []
    for seed in (1, 2, 3):
        for one in kept:
            name = one["name"] if seed == 1 else f"{one['name']}-{seed}"
            heard = [f"{text} OH" if place < seed else text for place, text in
                     enumerate(one["transcripts"])]  # fmt: skip
            copy = {**one, "name": name, "transcripts": heard, "recipe": "aa", "seed": seed}
            if seed == 1 or not one["name"].endswith("-again"):
                content["variants"].append(copy)
    summary = summarise(Results.model_validate(content))
    merged = {row.name: row for row in summary.merged_rows if row.seeds}
    int8 = merged["full-onnx-int8"]
    assert int8.seeds == (1, 2, 3) and int8.wer.low < int8.wer.value < int8.wer.high
    assert int8.errors.test == "paired t"
    assert reach_verdict(summary).headline.startswith("Over 3 seeds, `full-")
    assert select_variant(summary, "wer<=90%").chosen in merged


def test_results_of_before_are_todays(tmp_path: Path) -> None:
    """A file of the version before, read, written and read again, gives the same report."""
    before, after = tmp_path / "before", tmp_path / "after"
    content = make_speech_results()
    write_report(write_results(before, content))
    today = read_older(content).model_dump(mode="json")
    write_report(write_results(after, {"schema": "kotune.results/2", **today}))
    assert report_files(before) == report_files(after)


def test_faults_of_the_file_are_named(tmp_path: Path) -> None:
    content = make_speech_results()
    content["baselines"]["full"] = "nobody"
    content["variants"][1]["transcripts"].pop()
    with pytest.raises(FolderError, match="baseline 'nobody' is not among the variants") as told:
        write_report(write_results(tmp_path, content))
    assert "59 transcripts for 60 recordings" in str(told.value)
    content = make_speech_results()
    content["variants"][0]["latency"]["1"][0][0] = -1
    with pytest.raises(FolderError, match="variants -> 0 -> latency -> 1 -> 0 -> 0"):
        write_report(write_results(tmp_path, content))


@pytest.mark.skipif(
    find_chromium() is None, reason="chromium is not installed: apt-get install chromium"
)
@pytest.mark.parametrize(("width", "dark"), WIDTHS)
def test_nothing_is_cut_off(page: Page, folder: Path, width: int, dark: bool) -> None:
    page.problems.clear()
    page.open(folder / "report.html", width, dark=dark)
    assert faults_of(page, width) == []
    assert page.ask(SEEN_PLOTS) == len(PICTURES)
