"""A report folder from results.json: every writer, every kind of result."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from report_folder import csv_rows, report_files, write_results
from results_factory import make_results
from typer.testing import CliRunner

from bench.report.writing import write_report
from finetune.core.errors import FolderError

HOSTILE = '<script>alert("x")</script>|`*_[a](b)&'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full report."""
    place = write_results(tmp_path_factory.mktemp("report"), make_results())
    assert write_report(place) == place / "report.html"
    return place


def test_a_report_is_four_files_and_its_pictures(folder: Path) -> None:
    assert set(report_files(folder)) == {
        "report.html",
        "report.md",
        "results.csv",
        "results.tex",
        *(f"plots/{name}.svg" for name in ("trade_off", "latencies", "footprints", "curves")),
    }


def test_the_same_results_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    copy = write_results(tmp_path, json.loads((folder / "results.json").read_text("utf-8")))
    write_report(copy)
    assert report_files(copy) == report_files(folder)
    write_report(copy)
    assert report_files(copy) == report_files(folder)


def test_the_page_needs_no_network(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert not re.search(r"@import|url\(", page)
    assert set(re.findall(r"https?://[^\"'\s<]+", page)) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_korean_stands_as_it_was_written(folder: Path, name: str) -> None:
    text = (folder / name).read_text("utf-8")
    assert "네이버 영화 리뷰" in text
    assert "부정" in text
    assert "긍정" in text


@pytest.mark.parametrize("name", ["report.html", "report.md", "results.csv"])
def test_every_variant_is_told_and_failures_with_their_reason(folder: Path, name: str) -> None:
    text = (folder / name).read_text("utf-8")
    for variant in make_results()["variants"]:
        assert variant["name"] in text
    assert "int8 loses 1.9 points of accuracy" in text


def test_the_csv_has_numbers_and_empties(folder: Path) -> None:
    rows = csv_rows(folder)
    results = make_results()
    base = next(v for v in results["variants"] if v["name"] == results["baseline"])
    right = [a == b for a, b in zip(base["predicted"], results["truth"], strict=True)]
    told = rows[results["baseline"]]
    assert float(told["accuracy"]) == pytest.approx(sum(right) / len(right))
    assert float(told["accuracy_low"]) < float(told["accuracy"]) < float(told["accuracy_high"])
    assert told["speedup"] == ""
    assert told["is_baseline"] == "1"
    assert float(rows["lora-onnx-int8"]["speedup"]) > 3
    assert rows["lora-onnx-int8"]["speed_finding"] == "faster"
    assert rows["qlora-onnx-int8"]["failed"] == "1"
    assert rows["qlora-onnx-int8"]["accuracy"] == ""
    assert "peak_vram_bytes" not in told


def test_the_baseline_leads_and_failures_come_last(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    order = re.findall(r'<tr data-variant="([^"]+)"', page)
    assert order[0] == "full-pytorch-fp32"
    assert order[-1] == "qlora-onnx-int8"


def test_unseen_rows_have_their_own_accuracy(folder: Path) -> None:
    told = csv_rows(folder)["full-pytorch-fp32"]
    assert told["accuracy_unseen"] != told["accuracy"]
    assert ">Unseen<" in (folder / "report.html").read_text("utf-8")


def test_the_latex_table_is_whole(folder: Path) -> None:
    table = (folder / "results.tex").read_text("utf-8")
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    head, *body = rows
    assert len({row.count("&") for row in rows}) == 1
    assert len(body) == len(make_results()["variants"]) - 1  # the failed one has no figures
    assert head.startswith(r"Variant & Accuracy, \%")
    assert r"\textbf{full-pytorch-fp32}" in body[0]
    assert table.count(r"$\approx$") >= 2
    assert not re.search(r"(?<!\\)[%_#]", table.split("\n", 1)[1])
    assert not set("−×…") & set(table)


def test_pictures_are_files_of_their_own(folder: Path) -> None:
    for path in (folder / "plots").iterdir():
        text = path.read_text("utf-8")
        root = ElementTree.fromstring(text)
        assert float(root.get("width", 0)) > 900
        assert "var(" not in text
        assert f"plots/{path.name}" in (folder / "report.md").read_text("utf-8")


def test_names_and_texts_are_escaped(tmp_path: Path) -> None:
    content = make_results(variants=3)
    content |= {
        "name": HOSTILE,
        "note": HOSTILE,
        "commands": [HOSTILE],
        "labels": [HOSTILE, "긍정"],
    }
    content["data"] |= {"description": HOSTILE, "summary": {HOSTILE: [HOSTILE]}}
    content["environment"] |= {"platform": HOSTILE}
    content["variants"][1] |= {"name": HOSTILE, "description": HOSTILE, "runtime": HOSTILE}
    content["variants"][-1]["reason"] = HOSTILE
    content["curves"] = {HOSTILE: content["curves"]["nsmc-lora"]}
    content["ladders"] = {HOSTILE: content["ladders"]["nsmc-lora"]}
    write_report(write_results(tmp_path, content))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    for path in (tmp_path / "plots").iterdir():
        ElementTree.fromstring(path.read_text("utf-8"))
    markdown = (tmp_path / "report.md").read_text("utf-8")
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = [
        child for token in parser.parse(markdown) for child in [token, *(token.children or [])]
    ]
    raw = "".join(token.content for token in tokens if token.type in ("html_block", "html_inline"))
    assert "script" not in raw
    cells = [token for token in tokens if token.type in ("td_open", "th_open")]
    assert len(cells) > 50
    assert all(token.type != "link_open" for token in tokens)


def test_without_accuracy_nothing_is_claimed(tmp_path: Path) -> None:
    write_report(write_results(tmp_path, make_results(accuracy=False)))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "claims no accuracy" in page
    assert ">F1 macro<" not in page
    assert "Peak memory, MB" in page
    assert not any(
        name.startswith(("accuracy", "f1")) for name in csv_rows(tmp_path)["full-pytorch-fp32"]
    )


def test_a_gpu_adds_a_column(tmp_path: Path) -> None:
    write_report(write_results(tmp_path, make_results(gpu=True)))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert ">VRAM<" in page
    assert "VRAM, torch" in page
    assert "VRAM, NVML" in page
    assert "H100" in page


def test_artifacts_and_training_are_told(folder: Path) -> None:
    for name in ("report.html", "report.md"):
        words = (folder / name).read_text("utf-8")
        assert "onnx-int8: accuracy fell by 1.9 points" in words
        assert "4.1×10⁻⁶" in words
        assert "3.21 GB" in words
        assert "median step, s" in words


def test_a_ladder_goes_by_the_names_of_either_schema(tmp_path: Path) -> None:
    content = make_results(rows=50, variants=1)
    step = {"step": "merged", "max_logit_difference": 0.5, "flipped_over_margin": 7, "passed": True}
    content["ladders"] = {"a": [step]}
    write_report(write_results(tmp_path, content))
    assert "| merged | 0.500 | 7 | passed |" in (tmp_path / "report.md").read_text("utf-8")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"results\.json is missing"):
        write_report(tmp_path)
    with pytest.raises(FolderError, match="not a report folder"):
        write_report(tmp_path / "absent")


def test_the_command_prints_the_page(tmp_path: Path) -> None:
    import typer

    from bench.report.command import report_command

    app = typer.Typer()
    app.command()(report_command)
    write_results(tmp_path, make_results(rows=50, variants=2))
    done = CliRunner().invoke(app, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(tmp_path / "report.html")


def test_a_report_is_made_without_torch(tmp_path: Path) -> None:
    write_results(tmp_path, make_results(rows=50, variants=2))
    code = (
        "import sys\nfrom pathlib import Path\nfrom bench.report.writing import write_report\n"
        f"write_report(Path({str(tmp_path)!r}))\n"
        "sys.exit(bool({'torch', 'transformers', 'onnxruntime'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
