"""A speech report from its results.json: the same file in, the same bytes out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.report import text
from bench.report.pages.html import dirty_flags, masthead, place_picture, render_page
from bench.report.pages.markdown import (
    environment_pairs,
    escape,
    facts_table,
    fence,
    grid_table,
    more_pictures,
    spoken,
)
from bench.report.pictures.plots import FILE_WIDTH, standalone_svg
from bench.report.pictures.speech_plots import PLOTS
from bench.report.pictures.svg import colour_of
from bench.report.speech_summary import SpeechRow, SpeechSummary, summarise_speech
from bench.report.speech_verdict import failed_exports, headline
from bench.report.tables import facts
from bench.report.tables.csv_table import write_records
from bench.report.tables.grids import Grid, ladder_grids, training_grid
from bench.report.tables.speech_grids import errors_grid, latency_grid, speed_grid
from bench.results.speech_records import BASE, SCHEMA, read_speech_results
from finetune.core.files import write_text


def is_speech_report(folder: Path) -> bool:
    """Whether the folder's results.json is of a speech benchmark."""
    path = Path(folder) / "results.json"
    if not path.is_file():
        return False
    try:
        return json.loads(path.read_text("utf-8")).get("schema") == SCHEMA
    except (ValueError, AttributeError):
        return False


def write_speech_report(folder: Path) -> Path:
    """Write report.html, report.md, results.csv and plots/*.svg; the path of report.html.

    Raises FolderError where results.json is missing, of another schema, or does not hold
    together.
    """
    folder = Path(folder)
    summary = summarise_speech(read_speech_results(folder))
    pictures = {name: plot for name, draw in PLOTS.items() if (plot := draw(summary, FILE_WIDTH))}
    for name, plot in pictures.items():
        write_text(folder / "plots" / f"{name}.svg", standalone_svg(plot))
    write_text(folder / "results.csv", write_records([dict(_figures(row)) for row in summary.rows]))
    write_text(folder / "report.md", _markdown(summary, list(pictures)))
    write_text(folder / "report.html", _html(summary))
    return folder / "report.html"


def _html(summary: SpeechSummary) -> str:
    results = summary.results
    pictures = {
        name: place_picture(lambda width, draw=draw: draw(summary, width))
        for name, draw in PLOTS.items()
    }
    counts = text.plural(len(results.references), "test recording")
    content = {
        **masthead(results, f"{text.plural(len(summary.rows), 'variant')}, {counts}"),
        "flags": dirty_flags(results),
        "headline": headline(summary),
        "warning": failed_exports(summary),
        "introduction": _introduction(summary),
        **{name: pictures[name] for name in ("trade_off", "footprints", "curves")},
        "runtimes": {row.runtime: colour_of(row.runtime) for row in summary.trained},
        "errors": errors_grid(summary),
        "groups": [
            {
                "speed": speed_grid(summary, group),
                "latency": latency_grid(summary, group),
                "picture": pictures["lengths_base" if group == BASE else "lengths"],
            }
            for group in summary.groups
        ],
        "training": training_grid(results),
        "ladders": ladder_grids(results),
        "environment": facts.environment_facts(results),
        "packages": facts.flatten(results.environment.get("packages") or {}),
        "notes": _notes(summary),
        "commands": results.commands,
    }
    colours = {row.name: colour_of(row.runtime) for row in summary.rows}
    return render_page("speech.html", colours, content)


def _markdown(summary: SpeechSummary, pictures: Sequence[str]) -> str:
    results = summary.results
    training = training_grid(results)
    blocks = [
        f"# {escape(results.name)}",
        f"**{escape(headline(summary))}**",
        escape(failed_exports(summary)),
        escape(_introduction(summary)),
        *(f"![{spoken(name)}](plots/{name}.svg)" for name in pictures[:1]),
        *_section(errors_grid(summary)),
    ]
    for group in summary.groups:
        blocks += [*_section(speed_grid(summary, group)), *_section(latency_grid(summary, group))]
    if training:
        blocks += ["## Training", grid_table(training, "run")]
    for ladder in ladder_grids(results):
        blocks += [f"## From run to artifact: {escape(ladder.name)}", grid_table(ladder, "step")]
        blocks += map(escape, ladder.remarks)
    blocks += [
        *more_pictures(pictures[1:]),
        "## Environment",
        facts_table(environment_pairs(results)),
        "## How it was measured",
        "\n".join(f"- {escape(item)}" for item in _notes(summary)),
        *([fence("\n".join(results.commands))] if results.commands else []),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _section(grid: Grid) -> list[str]:
    remarks = [f"- {escape(remark)}" for remark in grid.remarks]
    return [f"## {escape(grid.name)}", grid_table(grid, "variant"), "\n".join(remarks)]


def _introduction(summary: SpeechSummary) -> str:
    run, settings = summary.results.run, summary.results.settings
    return (
        f"{run['name']} ({run['method']}, {run['parameters']['total']:,} parameters) with "
        f"{text.plural(settings['threads'], 'thread')}, each variant in a process of its own, "
        f"{text.plural(settings['rounds'], 'round')} of {text.plural(settings['calls'], 'call')}."
    )


def _notes(summary: SpeechSummary) -> list[str]:
    return [
        *(f"`{row.name}`: {row.description}." for row in summary.rows),
        "Latency is from a file's path to its text, one file at a time; the real-time factor "
        "(RTF) is the median over the length of the audio, less is faster.",
        "Intervals are 95 %, by bootstrap over recordings (error rates) and rounds (speed). "
        "▲ better, ▼ worse, ≈ no difference shown: the interval holds none.",
    ]


def _figures(row: SpeechRow) -> Iterator[tuple[str, Any]]:
    """Column name and value of everything that the row has; shares as shares."""
    for name in ("name", "group", "runtime", "precision", "description"):
        yield name, getattr(row, name)
    yield "failed", int(row.failed)
    yield "export_failed", int(row.export_failed)
    for name in ("reason", "size_bytes", "peak_memory_bytes", "load_s", "first_call_ms"):
        if (value := getattr(row, name)) is not None:
            yield name, value
    estimates = {"wer": row.wer, "cer": row.cer}
    for length in row.latency:
        estimates[f"rtf_{length}s"] = row.rtf[length]
        estimates[f"speedup_{length}s"] = row.speedup.get(length)
        for name in ("p50_ms", "p90_ms", "p95_ms", "p99_ms"):
            yield f"{name}_{length}s", getattr(row.latency[length], name)
    if row.gap is not None:
        yield "wer_difference", row.gap.difference
        yield from zip(("wer_difference_low", "wer_difference_high"), row.gap.interval, strict=True)
        yield "changed_transcripts", row.gap.changed
        yield "wer_finding", row.finding
    for name, found in estimates.items():
        if found is None:
            continue
        for end, value in (("", found.value), ("_low", found.low), ("_high", found.high)):
            if value is not None:
                yield f"{name}{end}", value
