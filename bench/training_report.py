"""results.json of a training benchmark or a plan's proof, as Markdown; imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.report.text import bytes_with_unit, percent, significant, times

Row = dict[str, Any]


def training_markdown(content: Row) -> str:
    """The page: what was compared, speed and memory, ratios, accuracy where trained whole."""
    return "\n".join(_training_lines(content)) + "\n"


def markdown_table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A Markdown table, the first column left, the others right."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join(['---', *['---:'] * (len(heads) - 1)])}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def facts_lines(content: Row) -> Iterator[str]:
    """Command, machine, note."""
    environment, hardware = content["environment"], content["environment"]["hardware"]
    yield f"# {content['name']}"
    yield ""
    yield f"    {environment['command']}"
    yield ""
    device = ", ".join(hardware["gpus"]) or hardware["cpu"]
    flags = ", ".join(hardware["cpu_flags"]) or "no flags known"
    versions = ", ".join(
        f"{name} {environment['packages'][name]}" for name in ("torch", "transformers", "peft")
    )
    yield f"{device} ({flags}), {content['threads']} threads; {versions}; {environment['created']}."
    if content["note"]:
        yield ""
        yield content["note"]
    yield ""


def _training_lines(content: Row) -> Iterator[str]:
    yield from facts_lines(content)
    settings = content["settings"]
    for way in settings["ways"]:
        yield f"- **{way['name']}**: {way['description'] or _changes(way)}"
    yield ""
    yield (
        f"{settings['processes']} processes each, {settings['rounds']} visits of "
        f"{settings['steps']} optimizer steps, in a random order; medians with 95 % intervals."
    )
    yield ""
    ok = [case for case in content["cases"] if case["status"] == "ok"]
    yield from markdown_table(
        [
            "case",
            "samples/s",
            f"against {content['baseline']}",
            "tokens/s",
            "padding",
            "rows a step",
            "step",
            "peak memory",
        ],
        [_speed_row(case) for case in ok],
    )
    yield from _method_lines(ok)
    yield from _peak_lines(ok)
    yield from _accuracy_lines(content, ok)
    for case in content["cases"]:
        if case["status"] != "ok":
            yield ""
            yield f"{case['name']} failed: {case['reason']}"


def _speed_row(case: Row) -> list[str]:
    figures = case["figures"]
    memory = figures["peak_vram_bytes"] or figures["peak_memory_bytes"]
    return [
        case["name"],
        _estimate(figures["samples_per_s"]),
        _ratio(figures["against_way"]),
        significant(figures["tokens_per_s"]),
        f"{percent(figures['padding_share'], 1)} %",
        significant(figures["rows_per_step"]),
        f"{_estimate(figures['step_ms'])} ms",
        bytes_with_unit(memory),
    ]


def _method_lines(cases: list[Row]) -> Iterator[str]:
    rows = [
        [case["name"], f"{method}-{case['way']}", _ratio(ratio)]
        for case in cases
        for method, ratio in case["figures"]["against_method"].items()
    ]
    if rows:
        yield ""
        yield from markdown_table(["a step of", "against a step of", "time ratio"], rows)


def _peak_lines(cases: list[Row]) -> Iterator[str]:
    rows = [
        [
            case["name"],
            f"{case['figures']['step_flops'] / 1e9:,.1f}",
            f"{case['facts']['matrix']['matrix_peak']['flops_per_s'] / 1e9:,.1f}",
            f"{percent(case['figures']['share_of_matrix_peak'], 1)} %",
        ]
        for case in cases
        if case["figures"]["share_of_matrix_peak"] is not None
    ]
    if rows:
        yield ""
        yield "What the step's matrix products reach by themselves, same shapes, types, threads:"
        yield ""
        heads = ["case", "GFLOP a step", "peak GFLOP/s of its products", "share reached"]
        yield from markdown_table(heads, rows)


def _accuracy_lines(content: Row, cases: list[Row]) -> Iterator[str]:
    rows = [
        [
            case["name"],
            f"{percent(case['whole_run']['validation_accuracy'])} %",
            f"{percent(case['whole_run']['test_accuracy'])} %",
            f"{case['whole_run']['training_time_s']:,.0f} s",
        ]
        for case in cases
        if case["whole_run"]
    ]
    if rows:
        yield ""
        yield f"Trained to the end, {content['epochs']:g} epochs:"
        yield ""
        heads = ["case", "validation accuracy", "test accuracy", "training time"]
        yield from markdown_table(heads, rows)


def _estimate(estimate: Row) -> str:
    value = significant(estimate["value"])
    if estimate["low"] is None:
        return value
    return f"{value} ({significant(estimate['low'])} to {significant(estimate['high'])})"


def _ratio(estimate: Row | None) -> str:
    if estimate is None:
        return ""
    interval = (
        ""
        if estimate["low"] is None
        else f" ({times(estimate['low'])} to {times(estimate['high'])})"
    )
    return f"{times(estimate['value'])} ×{interval}"


def _changes(way: Row) -> str:
    return ", ".join(f"{key}={value}" for key, value in way["set"].items()) or "the recipe as it is"
