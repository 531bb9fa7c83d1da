"""A speech report from its results.json: tables of error rates and of real-time factors."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bench.report.html import asset
from bench.statistics import Samples, collect_samples, latency_summary, median_ratio
from finetune.files import read_json, write_text
from finetune.speech_metrics import speech_metrics, wer_difference

SCHEMA = "kotune.speech-results/1"
NOTHING = "–"
Table = tuple[str, list[str], list[list[str]]]  # caption, headings, rows
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }}</title>
<meta name="viewport" content="width=device-width">
<style>{{ style }}</style></head><body><main>
<h1>{{ name }}</h1>
<p>{{ introduction }}</p>
{% for caption, headings, rows in tables %}
<h2>{{ caption }}</h2>
<div class="scroll"><table><thead><tr>
{% for one in headings %}<th scope="col">{{ one }}</th>{% endfor %}
</tr></thead><tbody>
{% for row in rows %}<tr>{% for one in row %}<td>{{ one }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}
{% for line in notes %}<p>{{ line }}</p>
{% endfor %}</main></body></html>
"""


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
    """Write report.html, report.md and results.csv; the path of report.html."""
    folder = Path(folder)
    results = read_json(folder / "results.json", SCHEMA)
    tables = speech_tables(results)
    introduction, notes = _introduction(results), _notes(results)
    lines = [f"# {results['name']}", introduction]
    for caption, headings, rows in tables:
        lines += [f"## {caption}", _markdown(headings, rows)]
    write_text(folder / "report.md", "\n\n".join([*lines, *notes]) + "\n")
    write_text(folder / "results.csv", _csv(tables))
    style = Markup("".join(asset(f"{name}.css") for name in ("theme", "report")))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.from_string(PAGE).render(
        name=results["name"],
        introduction=introduction,
        tables=tables,
        notes=notes,
        style=style,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def speech_tables(results: dict[str, Any]) -> list[Table]:
    """Error rates; then, for each group of variants, size, memory, speed and latency."""
    tables = [_errors_table(results)]
    for group in results["baselines"]:
        chosen = [one for one in results["variants"] if one["group"] == group]
        baseline = next(one for one in chosen if one["name"] == results["baselines"][group])
        what = "random weights, base-960h's architecture" if group == "base" else "trained model"
        tables.append(_speed_table(what, chosen, baseline, results["settings"]))
        tables.append(_latency_table(what, chosen))
    return tables


def _errors_table(results: dict[str, Any]) -> Table:
    references = results["references"]
    names = set(results["baselines"].values())
    heard = [one for one in results["variants"] if one["transcripts"]]
    base = next((one for one in heard if one["name"] in names), None)
    rows = []
    for one in heard:
        found = speech_metrics(references, one["transcripts"])
        cells = [
            one["name"],
            _share(found.wer, found.wer_interval),
            _share(found.cer, found.cer_interval),
        ]
        if base is None or one is base:
            cells += [NOTHING, NOTHING]
        else:
            gap = wer_difference(references, one["transcripts"], base["transcripts"])
            low, high = gap.interval
            cells.append(f"{gap.difference * 100:+.2f} ({low * 100:+.2f} to {high * 100:+.2f})")
            cells.append(str(gap.changed))
        rows.append(cells)
    headings = ["variant", "WER", "CER", "WER against baseline, points", "changed transcripts"]
    return f"Error rates on {len(references)} test recordings", headings, rows


def _speed_table(
    what: str,
    variants: list[dict[str, Any]],
    baseline: dict[str, Any],
    settings: dict[str, Any],
) -> Table:
    lengths = [f"{one:g}" for one in settings["lengths_s"]]
    headings = ["variant", "size, MB", "of baseline", "peak memory, MB", "load, s"]
    headings += [f"speed at {one} s" for one in lengths]
    rows = []
    for one in variants:
        if one["status"] == "failed":
            rows.append([one["name"], f"failed: {one['reason']}", *[""] * (len(headings) - 2)])
            continue
        memory = one["peak_memory_bytes"]
        cells = [
            one["name"],
            f"{one['size_bytes'] / 1e6:.1f}",
            f"{one['size_bytes'] / baseline['size_bytes']:.2f}x",
            NOTHING if memory is None else f"{memory / 1e6:.0f}",
            f"{one['load_s']:.2f}",
        ]
        cells += [_speed(one, baseline, length) for length in lengths]
        rows.append(cells)
    return f"Size, memory and speed against {baseline['name']}: {what}", headings, rows


def _latency_table(what: str, variants: list[dict[str, Any]]) -> Table:
    headings = ["variant", "audio, s", "p50, ms", "p90, ms", "p95, ms", "p99, ms", "RTF"]
    rows = []
    for one in variants:
        for length in one["latency"]:
            found = latency_summary(_samples(one, length))
            factor = found.p50_ms / 1000 / float(length)
            cells = [found.p50_ms, found.p90_ms, found.p95_ms, found.p99_ms]
            rows.append([one["name"], length, *(f"{ms:.1f}" for ms in cells), f"{factor:.4f}"])
    return f"Latency and real-time factor: {what}", headings, rows


def _speed(one: dict[str, Any], baseline: dict[str, Any], length: str) -> str:
    """How many times as fast as the baseline, with its interval."""
    if one is baseline or baseline["status"] == "failed":
        return "1x" if one is baseline else NOTHING
    ratio = median_ratio(_samples(baseline, length), _samples(one, length))
    if ratio.low is None:
        return f"{ratio.value:.2f}x"
    return f"{ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


def _samples(one: dict[str, Any], length: str) -> Samples:
    return collect_samples(
        (0, number, samples) for number, samples in enumerate(one["latency"][length])
    )


def _share(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{value:.2%} ({low:.2%} to {high:.2%})"


def _introduction(results: dict[str, Any]) -> str:
    run, settings = results["run"], results["settings"]
    hardware = results["environment"]["hardware"]
    return (
        f"{run['name']} ({run['method']}, {run['parameters']['total']:,} parameters), measured on "
        f"{hardware['cpu']} with {settings['threads']} threads, each variant in a process of its "
        f"own, {settings['rounds']} rounds of {settings['calls']} calls. Intervals are 95 %, by "
        "bootstrap over recordings (error rates) and rounds (speed)."
    )


def _notes(results: dict[str, Any]) -> list[str]:
    lines = [f"{one['name']}: {one['description']}." for one in results["variants"]]
    lines.append(
        "Latency is from a file's path to its text, one file at a time; the real-time factor (RTF) "
        "is the median over the length of the audio, less is faster."
    )
    return [*lines, f"Made by: {results['environment']['command']}"]


def _markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _csv(tables: list[Table]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for caption, headings, rows in tables:
        writer.writerows([[caption], headings, *rows, []])
    return stream.getvalue()
