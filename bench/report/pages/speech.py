"""The report of speech recognition: page, Markdown, CSV and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.report import text
from bench.report.notes import is_disturbed, measurement_notes
from bench.report.pages.html import dirty_flags, masthead, place_picture, render_page
from bench.report.pages.markdown import (
    environment_pairs,
    facts_table,
    fence,
    grid_table,
    more_pictures,
    selection_blocks,
    spoken,
)
from bench.report.pictures.plots import FILE_WIDTH, speech_plots, standalone_svg
from bench.report.pictures.svg import colour_of
from bench.report.rows import Row
from bench.report.selection import Selection, select_variant
from bench.report.summary import Summary, summarise
from bench.report.tables import facts
from bench.report.tables.csv_table import write_records
from bench.report.tables.grids import Grid, ladder_grids, seeds_grid, training_grid
from bench.report.tables.speech_grids import errors_grid, latency_grid, speed_grid
from bench.report.verdict import Verdict, reach_verdict
from bench.results.records import Results, Variant
from bench.statistics.latency import PROCESSES_FROM
from finetune.core.escaping import escape_markdown as escape
from finetune.core.files import write_text


def write_pages(folder: Path, results: Results, where: str | None) -> Path:
    """Write report.html, report.md, results.csv and plots/*.svg; the path of report.html.

    ``where`` asks for the best variant under conditions. Each file is written by rename.
    """
    summary = summarise(results)
    verdict = reach_verdict(summary)
    selection = select_variant(summary, where) if where else None
    drawn = {name: draw(summary, FILE_WIDTH) for name, draw in speech_plots(summary).items()}
    pictures = {name: plot for name, plot in drawn.items() if plot}
    for name, plot in pictures.items():
        write_text(folder / "plots" / f"{name}.svg", standalone_svg(plot))
    write_text(folder / "results.csv", write_records([dict(_figures(row)) for row in summary.rows]))
    write_text(folder / "report.md", _markdown(summary, verdict, selection, list(pictures)))
    write_text(folder / "report.html", _html(summary, verdict, selection))
    return folder / "report.html"


def _html(summary: Summary, verdict: Verdict, selection: Selection | None) -> str:
    results = summary.results
    pictures = {
        name: place_picture(lambda width, draw=draw: draw(summary, width))
        for name, draw in speech_plots(summary).items()
    }
    disturbed = ["the machine had other work"] if is_disturbed(results) else []
    content = {
        **masthead(results, _counts(summary)),
        "flags": [*dirty_flags(results), *disturbed],
        "headline": verdict.headline,
        "details": verdict.details,
        "selection": selection,
        "introduction": _introduction(summary),
        **{name: pictures[name] for name in ("trade_off", "footprints", "curves")},
        "runtimes": {row.runtime: colour_of(row.runtime) for row in summary.trained},
        "errors": errors_grid(summary) if results.references else None,
        "units": _units(summary),
        "groups": [
            {
                "speed": speed_grid(summary, group),
                "latency": latency_grid(summary, group),
                "picture": pictures["lengths" if group is None else f"lengths_{group}"],
            }
            for group in summary.groups
        ],
        "seeds": seeds_grid(summary),
        "training": training_grid(results),
        "ladders": ladder_grids(results),
        "environment": facts.environment_facts(results),
        "packages": facts.flatten(results.environment.get("packages") or {}),
        "notes": _notes(summary),
        "commands": results.commands,
    }
    colours = {row.name: colour_of(row.runtime) for row in (*summary.rows, *summary.merged_rows)}
    return render_page("speech.html", colours, content)


def _counts(summary: Summary) -> str:
    variants = text.plural(len(summary.rows), "variant")
    if not summary.test_rows:
        return variants
    return f"{variants}, {text.plural(summary.test_rows, 'test recording')}"


def _markdown(
    summary: Summary, verdict: Verdict, selection: Selection | None, pictures: Sequence[str]
) -> str:
    results = summary.results
    training, seeds = training_grid(results), seeds_grid(summary)
    blocks = [
        f"# {escape(results.name)}",
        f"**{escape(verdict.headline)}**",
        *map(escape, verdict.details),
        *selection_blocks(selection),
        escape(_introduction(summary)),
        *(f"![{spoken(name)}](plots/{name}.svg)" for name in pictures[:1]),
        *(_section(errors_grid(summary)) if results.references else []),
    ]
    for group in summary.groups:
        blocks += [*_section(speed_grid(summary, group)), *_section(latency_grid(summary, group))]
    if seeds:
        blocks += _section(seeds)
    if training:
        blocks += ["## Training", grid_table(training, "run")]
    for ladder in ladder_grids(results):
        blocks += [
            f"## From run to artifact: {escape(ladder.name)}",
            grid_table(ladder, "step"),
        ]
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


def _introduction(summary: Summary) -> str:
    settings = summary.results.settings
    told = [
        f"{run} ({one.method}, {one.parameters.total:,} parameters)"
        for run, one in _runs(summary).items()
    ]
    calls = text.plural(settings["calls"], "call")
    rounds = text.plural(settings["rounds"], "round")
    parts = [
        f"{text.listed(told)} with {text.plural(settings['threads'], 'thread')}",
        "each variant in a process of its own",
    ]
    if settings.get("processes"):
        parts[1] = f"each variant in {text.plural(settings['processes'], 'fresh process', 'es')}"
        calls += " at every length"
    return f"{', '.join(parts)}, {rounds} of {calls}."


def _runs(summary: Summary) -> dict[str, Variant]:
    """A variant of each run that was measured."""
    found: dict[str, Variant] = {}
    for one in summary.results.variants:
        if one.run is not None and one.parameters is not None:
            found.setdefault(one.run, one)
    return found


def _notes(summary: Summary) -> list[str]:
    return [
        *(f"`{row.name}`: {row.description}." for row in summary.rows),
        *(measurement_notes(summary) if summary.results.settings.get("processes") else []),
        "Latency is from a file's path to its text, one file at a time; the real-time factor "
        "(RTF) is the median over the length of the audio, less is faster.",
        "Intervals are 95 %, by bootstrap over recordings (error rates) and "
        f"{_units(summary)} (speed). ▲ better, ▼ worse, ≈ no difference shown: the interval "
        "holds none.",
    ]


def _units(summary: Summary) -> str:
    """What the intervals of speed resample (``bench/statistics/latency.py``)."""
    seen = {part.process for one in summary.results.variants for part in one.latency}
    return "processes" if len(seen) >= PROCESSES_FROM else "rounds"


def _figures(row: Row) -> Iterator[tuple[str, Any]]:
    """Column name and value of everything that the row has; shares as shares."""
    yield "name", row.name
    yield "group", row.group or row.method
    for name in ("runtime", "precision", "description"):
        yield name, getattr(row, name)
    yield "failed", int(row.failed)
    yield "export_failed", int(row.export_failed)
    for name in ("reason", "size_bytes", "peak_memory_bytes", "load_s", "first_call_ms"):
        if (value := getattr(row, name)) is not None:
            yield name, value
    estimates = {"wer": row.wer, "cer": row.cer}
    for length, one in row.lengths.items():
        estimates[f"rtf_{length}s"] = one.rtf
        estimates[f"speedup_{length}s"] = one.speedup
        for name in ("p50_ms", "p90_ms", "p95_ms", "p99_ms"):
            yield f"{name}_{length}s", getattr(one.latency, name)
        if one.noise_floor is not None:
            yield f"noise_floor_{length}s", one.noise_floor
    if row.errors is not None:
        difference = row.errors.difference
        yield "wer_difference", difference.value
        yield "wer_difference_low", difference.low
        yield "wer_difference_high", difference.high
        yield "changed_transcripts", row.errors.changed
        yield "wer_finding", row.errors.finding
    for name, found in estimates.items():
        if found is None:
            continue
        for end, value in (("", found.value), ("_low", found.low), ("_high", found.high)):
            if value is not None:
                yield f"{name}{end}", value
