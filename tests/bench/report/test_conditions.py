"""Conditions on the best variant: the grammar, its errors, and what is chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_folder import write_results
from results_factory import make_results
from speech_results_factory import make_results_today
from typer.testing import CliRunner

from bench.report.selection import check_row, figure_of, select_variant
from bench.report.summary import Summary, summarise
from bench.report.writing import write_report
from bench.results.conditions import FIELDS, OPERATORS, parse_conditions
from bench.results.reading import read_results
from bench.results.records import Results
from bench.settings import BenchSection, folder_settings
from finetune.core.errors import GateError, RecipeError
from kotune import app

ISSUE = "accuracy_drop<=0.2pt, p95_ms<=20, size_mb<=150"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("conditions")
    return write_results(place, make_results(noise_pair=True))


@pytest.fixture(scope="module")
def summary(folder: Path) -> Summary:
    return summarise(read_results(folder))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(FIELDS)),
            st.sampled_from(sorted(OPERATORS)),
            st.floats(0, 1e6).map(lambda value: f"{value:.4f}"),
            st.sampled_from(["", " "]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_every_condition_that_is_written_is_read_back(parts: list[tuple[str, ...]]) -> None:
    written = []
    for name, sign, number, space in parts:
        unit = next(iter(FIELDS[name].units))
        written.append(f"{name}{space}{sign}{space}{number}{unit}")
    found = parse_conditions(", ".join(written))
    for (name, sign, number, _), condition in zip(parts, found, strict=True):
        factor = next(iter(FIELDS[name].units.values()))
        assert (condition.field.name, condition.operator) == (name, sign)
        assert condition.limit == pytest.approx(float(number) * factor)


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("p95_ms<=20", 20),
        ("p95_ms<=0.02s", 20),
        ("size_mb<150", 150e6),
        ("size_mb < 0.15 GB", 150e6),
        ("accuracy>=85%", 0.85),
        ("accuracy_drop<=0.2pt", 0.002),
        ("training_time_s<=2h", 7200),
    ],
)
def test_units_are_converted(words: str, limit: float) -> None:
    assert parse_conditions(words)[0].limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("p95<=20", "did you mean 'p95_ms'"),
        ("accuracy>=0.85", "needs a unit"),
        ("size_mb<=150kg", "has no unit 'kg'"),
        ("p95_ms=20", "is no condition"),
        ("p95_ms<=20,", "a condition is empty"),
        ("p95_ms<=__import__('os')", "is no condition"),
        ("p95_ms<=-3", "is no condition"),
    ],
)
def test_what_cannot_be_read_is_told(words: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told.replace("(", r"\(")):
        parse_conditions(words)


def test_a_benchmark_refuses_wrong_conditions_before_it_measures() -> None:
    with pytest.raises(RecipeError, match="did you mean 'p95_ms'"):
        folder_settings(["where=p95<=20"], BenchSection)
    assert folder_settings([f'where="{ISSUE}"'], BenchSection).where == ISSUE


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as told:
        parse_conditions("p95<=20, accuracy>=0.8, wrong")
    assert str(told.value).count(";") >= 2


def test_the_fastest_that_satisfies_everything_is_named(summary: Summary) -> None:
    found = select_variant(summary, ISSUE)
    fit = [row for row, checks in found.checks if all(check.holds for check in checks)]
    assert found.chosen == min(fit, key=lambda row: row.latency.p50_ms).name
    assert f"`{found.chosen}` is the fastest" in found.headline
    assert not any(row.is_noise_pair for row, _ in found.checks)
    failing = {sentence.split("`")[1]: sentence for sentence in found.sentences}
    assert "accuracy_drop<=0.2pt" in failing["tfidf-sklearn-fp64"]
    assert "p95_ms" not in failing["tfidf-sklearn-fp64"]
    assert "size_mb<=150 (443 MB)" in failing["lora-onnx-fp32"]


def test_every_field_is_a_figure_of_a_row(summary: Summary) -> None:
    found = {name for name in FIELDS for row in summary.rows if figure_of(row, FIELDS[name])}
    assert {"accuracy", "accuracy_drop_high", "p95_ms", "speedup_low", "size_mb"} <= found
    speech = summarise(Results.model_validate(make_results_today(failed=False)))
    found = {name for name in FIELDS for row in speech.rows if figure_of(row, FIELDS[name])}
    assert {"wer", "cer_low", "wer_increase_high", "p99_ms", "memory_mb"} <= found


def test_the_checks_are_those_of_the_figures(summary: Summary) -> None:
    conditions = parse_conditions("accuracy_drop<=0pt, accuracy_drop_high<=0pt, speedup>=1")
    base = summary.baseline
    assert [check.holds for check in check_row(base, conditions)] == [True, True, True]
    worse = next(row for row in summary.rows if row.name == "tfidf-sklearn-fp64")
    assert [check.holds for check in check_row(worse, conditions)] == [False, False, True]


def test_what_was_not_measured_satisfies_nothing(summary: Summary) -> None:
    found = select_variant(summary, "vram_mb<=100000")
    assert found.chosen is None
    assert all("not measured" in sentence for sentence in found.sentences)
    assert len(found.sentences) == len(summary.contenders)


def test_the_report_shows_it_and_the_command_fails_where_nothing_fits(folder: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["report", str(folder), "--where", ISSUE])
    assert done.exit_code == 0, done.output
    assert "is the fastest variant that satisfies all conditions" in " ".join(done.output.split())
    for name in ("report.html", "report.md"):
        assert "fastest variant that satisfies" in (folder / name).read_text("utf-8")
    found = select_variant(summarise(read_results(folder)), ISSUE)
    folded = f"<details><summary>{len(found.sentences)} of {len(found.checks)} variants"
    assert folded in (folder / "report.html").read_text("utf-8")
    done = runner.invoke(app, ["report", str(folder), "--where", "p50_ms<=0.001"])
    assert isinstance(done.exception, GateError)
    assert "No variant satisfies" in done.output
    assert "<details open><summary>" in (folder / "report.html").read_text("utf-8")


def test_the_benchmarks_own_conditions_need_no_option(tmp_path: Path) -> None:
    content = make_results()
    content["settings"]["where"] = ISSUE
    place = write_results(tmp_path, json.loads(json.dumps(content)))
    page = write_report(place)
    assert "fastest variant that satisfies" in page.read_text("utf-8")
