"""results.json of a training benchmark or a plan's proof, as Markdown; imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.report.text import bytes_with_unit, percent, points, significant, times

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
    ok = [case for case in content["cases"] if case["status"] == "ok"]
    if settings["processes"]:
        yield from _speed_lines(settings, ok)
    yield from _accuracy_lines(content, ok)
    for case in content["cases"]:
        if case["status"] != "ok":
            yield ""
            yield f"{case['name']} failed: {case['reason']}"


def _speed_lines(settings: Row, cases: list[Row]) -> Iterator[str]:
    visit = f"{settings['steps']} optimizer steps"
    if settings["visit_s"]:
        visit += f" and {settings['visit_s']:g} s at least"
    yield ""
    yield (
        f"{settings['processes']} processes each, {settings['rounds']} visits of {visit}, "
        "in a random order; medians with 95 % intervals."
    )
    yield ""
    yield from markdown_table(
        ["case", "samples/s", "tokens/s", "padding", "rows a step", "step", "peak memory"],
        [_speed_row(case) for case in cases],
    )
    yield from _way_lines(cases)
    yield from _method_lines(cases)
    yield from _peak_lines(cases)


def _speed_row(case: Row) -> list[str]:
    figures = case["figures"]
    memory = figures["peak_vram_bytes"] or figures["peak_memory_bytes"]
    return [
        case["name"],
        _estimate(figures["samples_per_s"]),
        significant(figures["tokens_per_s"]),
        f"{percent(figures['padding_share'], 1)} %",
        significant(figures["rows_per_step"]),
        f"{_estimate(figures['step_ms'])} ms",
        bytes_with_unit(memory),
    ]


def _way_lines(cases: list[Row]) -> Iterator[str]:
    yield from _ratio_lines(
        ["samples/s of", "over those of", "ratio"],
        [
            [case["name"], f"{case['method']}-{way}", _ratio(ratio)]
            for case in cases
            for way, ratio in case["figures"]["against_ways"].items()
        ],
    )


def _method_lines(cases: list[Row]) -> Iterator[str]:
    yield from _ratio_lines(
        ["a step of", "over a step of", "time ratio"],
        [
            [case["name"], f"{method}-{case['way']}", _ratio(ratio)]
            for case in cases
            for method, ratio in case["figures"]["against_methods"].items()
        ],
    )


def _ratio_lines(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    if rows:
        yield ""
        yield from markdown_table(heads, rows)


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
    whole = [case for case in cases if case["whole_run"]]
    if not whole:
        return
    yield ""
    epochs = f"{content['epochs']:g} epoch" + ("" if content["epochs"] == 1 else "s")
    yield f"Trained to the end, {epochs}, the same rows in every case:"
    yield ""
    yield from markdown_table(
        ["case", "optimizer steps", "validation accuracy", "test accuracy"],
        [
            [case["name"], f"{case['whole_run']['steps']:,}"]
            + [_share(case["figures"]["accuracy"][split]) for split in ("validation", "test")]
            for case in whole
        ],
    )
    yield from _ratio_lines(
        ["accuracy of", "less that of", "validation, in points", "test, in points"],
        [
            [case["name"], f"{case['method']}-{way}"]
            + [_difference(pairs[split]) for split in ("validation", "test")]
            for case in whole
            for way, pairs in case["figures"]["accuracy_against_ways"].items()
        ],
    )


def _share(estimate: Row) -> str:
    low, high = percent(estimate["low"]), percent(estimate["high"])
    return f"{percent(estimate['value'])} % ({low} to {high})"


def _difference(pair: Row) -> str:
    """Points with the interval of the paired bootstrap, and McNemar's p."""
    low, high = (points(value) for value in pair["interval"])
    return f"{points(pair['difference'])} ({low} to {high}), p {pair['p_value']:.2g}"


def _estimate(estimate: Row) -> str:
    value = significant(estimate["value"])
    if estimate["low"] is None:
        return value
    return f"{value} ({significant(estimate['low'])} to {significant(estimate['high'])})"


def _ratio(estimate: Row) -> str:
    interval = (
        ""
        if estimate["low"] is None
        else f" ({times(estimate['low'])} to {times(estimate['high'])})"
    )
    return f"{times(estimate['value'])} ×{interval}"


def _changes(way: Row) -> str:
    return ", ".join(f"{key}={value}" for key, value in way["set"].items()) or "the recipe as it is"
