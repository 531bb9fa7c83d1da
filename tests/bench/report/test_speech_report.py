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
from speech_results_factory import LENGTHS, make_speech_results

from bench.report.pages.speech import write_speech_report
from bench.report.pictures.frame import split_strays
from bench.report.pictures.speech_plots import error_points
from bench.report.speech_summary import SpeechSummary, summarise_speech
from bench.report.speech_verdict import headline
from bench.results.speech_records import SpeechResults
from finetune.core.errors import FolderError

PICTURES = {"trade_off", "lengths", "lengths_base", "footprints", "curves"}


def summary_of(content: dict) -> SpeechSummary:
    return summarise_speech(SpeechResults.model_validate(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = write_results(tmp_path_factory.mktemp("speech"), make_speech_results())
    assert write_speech_report(place) == place / "report.html"
    return place


def test_a_report_is_three_files_and_its_pictures(folder: Path, tmp_path: Path) -> None:
    files = report_files(folder)
    plots = {f"plots/{name}.svg" for name in PICTURES}
    assert set(files) == {"report.html", "report.md", "results.csv", *plots}
    for name in plots:
        assert ElementTree.fromstring(files[name]).get("role") == "img"
    copy = write_results(tmp_path, json.loads((folder / "results.json").read_text("utf-8")))
    write_speech_report(copy)
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
    assert summary.shown == "5"
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


def test_faults_of_the_file_are_named(tmp_path: Path) -> None:
    content = make_speech_results()
    content["baselines"]["full"] = "nobody"
    content["variants"][1]["transcripts"].pop()
    with pytest.raises(FolderError, match="baseline 'nobody' is not among the variants") as told:
        write_speech_report(write_results(tmp_path, content))
    assert "59 transcripts for 60 recordings" in str(told.value)
    content = make_speech_results()
    content["variants"][0]["latency"]["1"][0][0] = -1
    with pytest.raises(FolderError, match="variants -> 0 -> latency -> 1 -> 0 -> 0"):
        write_speech_report(write_results(tmp_path, content))


@pytest.mark.skipif(
    find_chromium() is None, reason="chromium is not installed: apt-get install chromium"
)
@pytest.mark.parametrize(("width", "dark"), WIDTHS)
def test_nothing_is_cut_off(page: Page, folder: Path, width: int, dark: bool) -> None:
    page.problems.clear()
    page.open(folder / "report.html", width, dark=dark)
    assert faults_of(page, width) == []
    assert page.ask(SEEN_PLOTS) == len(PICTURES)
