"""What the figures come to, in sentences: the same words for HTML and Markdown.

Names of variants stand in backticks. The verdict is the fastest variant whose accuracy is either
surely within MARGIN of the baseline's (on 50,000 rows a loss of a tenth of a point is significant
and still may be worth a fourfold speed, so it is named with its price rather than ruled out), or
not shown to be below it (McNemar, Holm-adjusted) and observed to be less than CAUTION below (on
60 rows hardly any loss is significant). Of those that tie with it on speed, the one that keeps
most accuracy is chosen. Where a recipe was trained with several seeds, all of its runs are one
variant, and the comparison is over seeds. What failed the checks of its export is never chosen.

A loss or a gain is called so only where the table's mark says so (``comparison.finding``).

In speech it is the fastest variant at the length shown that raises the word error rate by at most
``max_wer_increase``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.report import text
from bench.report.figures import noise_floor, tie_on_speed
from bench.report.rows import Row
from bench.report.summary import Summary
from bench.statistics.decisions import Estimate

MARGIN = 0.005
CAUTION = 0.01
MAX_WER_INCREASE = 0.005  # of speech, where the settings are older than the key


@dataclass(frozen=True)
class Change:
    """One figure of the baseline beside the chosen variant's."""

    label: str
    before: str
    after: str
    unit: str


@dataclass(frozen=True)
class Verdict:
    """A headline, the sentences under it, the variant it is about, and what changes with it."""

    headline: str
    details: tuple[str, ...]
    chosen: str | None
    changes: tuple[Change, ...]


def reach_verdict(summary: Summary) -> Verdict:
    """The verdict on a summary; says so when there is nothing to choose."""
    summary = summary.over_seeds
    if summary.length is not None:
        return _speech_verdict(summary)
    measured, base = summary.contenders, summary.baseline
    failures = (*_failed_exports(summary), *_failures(summary))
    if not measured:
        none = "No variant finished."
        if summary.shown:
            none = "Nothing can be recommended: what ran is of exports that failed their checks."
        return Verdict(none, failures, None, ())
    if len(measured) == 1:
        return Verdict(_alone(measured[0], summary), failures, measured[0].name, ())
    if base is None or base.export_failed:
        what = "failed" if base is None else "is of an export that failed its checks"
        lost = f"The baseline `{summary.results.baseline}` {what}, so nothing is compared with it."
        return Verdict(lost, failures, None, ())
    timed = [row for row in measured if row.latency]
    if base.latency is None or len(timed) < 2:
        return Verdict(_most_accurate(measured, summary), failures, None, ())
    group = _fastest(timed, summary)
    chosen = max(group, key=_kept)
    if chosen.speed_finding != "faster" and not _gains(chosen):
        chosen = base
    details = (
        _speed(chosen, base),
        _loss(chosen, summary),
        _lossless(chosen, timed),
        _speed_ties(chosen, group),
        *_faster_but_worse(chosen, timed),
    )
    return Verdict(
        headline=_headline(chosen, base),
        details=(*(sentence for sentence in details if sentence), *failures),
        chosen=chosen.name,
        changes=() if chosen is base else _changes(base, chosen),
    )


def _p50(row: Row) -> float:
    assert row.latency is not None
    return row.latency.p50_ms


def _acceptable(row: Row) -> bool:
    """Whether accuracy allows the row (see the top of this file).

    Unknown accuracy does, but for the classical baseline, for which only accuracy could speak.
    """
    if row.comparison is None:
        return row.is_baseline or (row.accuracy is None and row.method != "tfidf")
    found, low = row.comparison.difference, row.comparison.difference.low
    unshown = row.comparison.finding != "worse" and found.value > -CAUTION
    return unshown or (low is not None and low >= -MARGIN)


def _fastest(timed: list[Row], summary: Summary) -> list[Row]:
    """The fastest acceptable row, and the acceptable ones that tie with it on speed.

    A row that is not shown to be faster than the baseline is no tie of one that is.
    """
    acceptable = [row for row in timed if _acceptable(row)]
    first = min(acceptable, key=_p50)
    floor = noise_floor(summary.noise_pair.speedup if summary.noise_pair else None)
    faster = first.speed_finding == "faster"
    alike = [row for row in acceptable if (row.speed_finding == "faster") == faster]
    return [row for row in alike if row is first or tie_on_speed(row, first, floor)]


def _kept(row: Row) -> tuple[int, float, float]:
    """How much accuracy a row keeps, then how fast it is."""
    lossless = row.comparison is None or row.comparison.finding != "worse"
    return int(lossless), row.accuracy.value if row.accuracy else 0.0, -_p50(row)


def _gains(row: Row) -> bool:
    return row.comparison is not None and row.comparison.finding == "better"


def _headline(chosen: Row, base: Row) -> str:
    if chosen is base or chosen.speedup is None:
        return f"Nothing is measurably faster than `{base.name}` at its accuracy."
    price = _price(chosen)
    over = _over_seeds(chosen, base)
    if chosen.speed_finding != "faster":
        gain = price.removeprefix(" and")
        return f"{over}`{chosen.name}`{gain} over `{base.name}` and is not measurably faster."
    gain = text.times(chosen.speedup.value)
    return f"{over}`{chosen.name}` is {gain} times as fast as `{base.name}`{price}."


def _over_seeds(chosen: Row, base: Row) -> str:
    """How many runs a headline speaks of, where not of one each."""
    own, other = len(chosen.seeds), len(base.seeds)
    if not own and not other:
        return ""
    if own == other:
        return f"Over {own} seeds, "
    counts = [text.plural(count or 1, "run") for count in (own, other)]
    return f"Over {counts[0]} against {counts[1]}, "


def _price(chosen: Row) -> str:
    """What the speed costs in accuracy, as the end of a sentence; empty when unknown."""
    if chosen.comparison is None:
        return ""
    finding, pair = chosen.comparison.finding, chosen.comparison.paired
    moved = f"{100 * abs(chosen.comparison.difference.value):.2f} points"
    if finding == "worse":
        return f" and loses {moved} of accuracy"
    if finding == "better":
        return f" and gains {moved} of accuracy"
    if pair is not None and pair.gained + pair.lost == 0:
        return " and gives the same answers"
    by = "so few runs" if pair is None else text.plural(pair.rows, "row")
    return f", with no loss of accuracy that {by} could show"


def _speed(chosen: Row, base: Row) -> str:
    """Both medians and the interval of their ratio; empty for the baseline itself."""
    if chosen.speedup is None:
        return ""
    own, other = text.milliseconds(_p50(chosen)), text.milliseconds(_p50(base))
    medians = f"p50 is {own} ms instead of {other} ms"
    if chosen.speedup.low is None or chosen.speedup.high is None:
        return f"{medians}."
    ends = f"{text.times(chosen.speedup.low)} to {text.times(chosen.speedup.high)}"
    return f"{medians}: {text.times(chosen.speedup.value)} times as fast, 95 % interval {ends}."


def _loss(chosen: Row, summary: Summary) -> str:
    """Accuracy of the chosen row beside the baseline's, with what the rows leave open."""
    rows = text.plural(summary.test_rows, "test row")
    base = summary.baseline
    if base is None or not base.accuracy:
        return "Speed and memory only: this benchmark claims no accuracy."
    if chosen is base or not chosen.accuracy or not chosen.comparison:
        return f"`{base.name}` is right on {_share(base.accuracy)} of {rows}."
    found, low = chosen.comparison, chosen.comparison.difference.low
    compared = sum(1 for row in summary.measured if row.comparison)
    adjusted = f", adjusted for {compared} comparisons" if compared > 1 else ""
    sentence = (
        f"Of {rows} it gets {text.percent(chosen.accuracy.value)} % right{_range(chosen)}, the "
        f"baseline {text.percent(base.accuracy.value)} %{_range(base)}: "
        f"{text.points(found.difference.value)} points{_interval(found.difference)} "
        f"({found.test}, {text.p_value(found.p_adjusted)}{adjusted})."
    )
    if found.finding == "tie" and low is not None and low < -CAUTION:
        few = "runs" if found.paired is None else "rows"
        sentence += f" So few {few} cannot rule out a loss of up to {100 * abs(low):.1f} points."
    return sentence


def _range(row: Row) -> str:
    """The lowest and the highest of several seeds."""
    if not row.seed_accuracies:
        return ""
    ends = min(row.seed_accuracies.values()), max(row.seed_accuracies.values())
    return f" on average of {len(row.seeds)} seeds ({text.span(*map(text.percent, ends))})"


def _interval(difference: Estimate) -> str:
    if difference.low is None or difference.high is None:
        return ""
    return f", 95 % interval {text.points(difference.low)} to {text.points(difference.high)}"


def _share(accuracy: Estimate) -> str:
    told = f"{text.percent(accuracy.value)} %"
    if accuracy.low is None or accuracy.high is None:
        return told
    return f"{told} ({text.span(text.percent(accuracy.low), text.percent(accuracy.high))})"


def _lossless(chosen: Row, timed: list[Row]) -> str:
    """When the chosen row pays with accuracy: the fastest that does not."""
    if chosen.comparison is None or chosen.comparison.finding != "worse":
        return ""
    free = [row for row in timed if row.comparison and row.comparison.finding != "worse"]
    fastest = min(free, key=_p50, default=None)
    if fastest is None or fastest.speed_finding != "faster" or fastest.speedup is None:
        return "Nothing faster than the baseline is without a measurable loss."
    gain = text.times(fastest.speedup.value)
    return f"Without a measurable loss the fastest is `{fastest.name}`, {gain} times as fast."


def _speed_ties(chosen: Row, group: list[Row]) -> str:
    tied = [f"`{row.name}`" for row in group if row is not chosen]
    if not tied:
        return ""
    return f"{text.listed(tied)} {'ties' if len(tied) == 1 else 'tie'} with it on speed."


def _faster_but_worse(chosen: Row, timed: list[Row]) -> Iterator[str]:
    """Rows that are faster still: what they lose, or by how much they are lower without proof."""
    refused = [
        row
        for row in sorted(timed, key=_p50)
        if _p50(row) < _p50(chosen) and row.comparison is not None and not _acceptable(row)
    ]
    lose, tie = [], []
    for row in refused:
        name = f"`{row.name}` ({text.milliseconds(_p50(row))} ms)"
        moved = f"{100 * abs(row.comparison.difference.value):.2f} points"
        if row.comparison.finding == "worse":
            lose.append(f"{name} loses {moved}")
        else:
            tie.append(f"{name} is {moved} lower on these rows")
    if lose:
        yield f"Faster still, but {text.listed(lose)}."
    if tie:
        yield (
            f"Faster still, but {text.listed(tie)}: no difference is shown, and a loss of more "
            f"than {100 * MARGIN:g} points not ruled out."
        )


def _changes(base: Row, chosen: Row) -> tuple[Change, ...]:
    """Baseline → chosen, figure by figure, as far as both have them."""
    pairs = [
        ("Accuracy", base.accuracy, chosen.accuracy, lambda e: text.percent(e.value), "%"),
        ("p50 latency", _p50(base), _p50(chosen), text.milliseconds, "ms"),
        (
            "Throughput",
            base.rows_per_s,
            chosen.rows_per_s,
            lambda e: text.significant(e.value),
            "rows/s",
        ),
        ("Size on disk", base.size_bytes, chosen.size_bytes, text.megabytes, "MB"),
        ("Peak memory", base.peak_memory_bytes, chosen.peak_memory_bytes, text.megabytes, "MB"),
    ]
    return tuple(
        Change(label, written(before), written(after), unit)
        for label, before, after, written, unit in pairs
        if before is not None and after is not None
    )


def _alone(row: Row, summary: Summary) -> str:
    told = []
    if row.accuracy:
        rows = text.plural(summary.test_rows, "test row")
        told.append(f"is right on {_share(row.accuracy)} of {rows}")
    if row.latency:
        p50, p99 = text.milliseconds(row.latency.p50_ms), text.milliseconds(row.latency.p99_ms)
        told.append(f"answers in {p50} ms (p50; p99 {p99} ms)")
    return f"`{row.name}` {text.listed(told)}." if told else f"`{row.name}` ran."


def _most_accurate(measured: tuple[Row, ...], summary: Summary) -> str:
    scored = [row for row in measured if row.accuracy]
    if not scored:
        return "Neither accuracy nor latency was measured."
    best = max(scored, key=lambda row: row.accuracy.value if row.accuracy else 0)
    assert best.accuracy is not None
    rows = text.plural(summary.test_rows, "test row")
    return f"`{best.name}` is right most often: on {_share(best.accuracy)} of {rows}."


def _failed_exports(summary: Summary) -> tuple[str, ...]:
    """What was measured although its export failed, and at which check."""
    return tuple(
        f"`{row.name}` was measured, but its export failed its checks{_failed_check(row, summary)}:"
        " it is not to be used."
        for row in summary.shown
        if row.export_failed
    )


def _failed_check(row: Row, summary: Summary) -> str:
    ladder = summary.results.ladders.get(row.run or "", ())
    told = [f"{step.step}: {step.failure}".rstrip(".") for step in ladder if step.failure]
    return f" ({'; '.join(told)})" if told else ""


def _failures(summary: Summary) -> tuple[str, ...]:
    return tuple(
        f"`{row.name}` failed: {(row.reason or 'no reason was recorded').rstrip('.')}."
        for row in summary.failed
    )


def _speech_verdict(summary: Summary) -> Verdict:
    """The fastest variant within the limit, and what it costs."""
    details = (*_speech_exports(summary), *_failures(summary))
    limit = summary.results.settings.get("max_wer_increase", MAX_WER_INCREASE)
    baseline = summary.baseline
    if baseline is None:
        lost = f"`{summary.results.baseline}`, the baseline, failed: nothing to compare with."
        return Verdict(lost, details, None, ())
    able = [
        row
        for row in summary.contenders
        if row.speed_finding == "faster"
        and row.errors is not None
        and row.errors.difference.value <= limit + 1e-9
    ]
    fastest = max(able, key=lambda row: row.speedup.value, default=None)
    if fastest is None:
        none = (
            f"Nothing is measurably faster than `{baseline.name}` within "
            f"{text.points(limit)} points of word error rate."
        )
        return Verdict(none, details, baseline.name, ())
    headline = (
        f"{_over_seeds(fastest, baseline)}`{fastest.name}` is {text.times(fastest.speedup.value)} "
        f"times as fast as `{baseline.name}` at {summary.length} s of audio {_cost(fastest)}."
    )
    return Verdict(headline, details, fastest.name, ())


def _speech_exports(summary: Summary) -> tuple[str, ...]:
    """What was measured although its export failed, in one sentence."""
    names = [f"`{row.name}`" for row in summary.measured if row.export_failed]
    if not names:
        return ()
    are = "is of an export" if len(names) == 1 else "are of exports"
    told = f"{text.listed(names)} {are} that failed its checks: measured, and not to be used."
    return (told,)


def _cost(row: Row) -> str:
    """What the speed costs: a change is called so only where its interval or test shows one."""
    found = row.errors
    if found.changed == 0:
        return "and changes no transcript"
    moved = f"{100 * abs(found.difference.value):.2f} points"
    if found.finding == "worse":
        return f"and raises the word error rate by {moved}"
    if found.finding == "better":
        return f"and lowers the word error rate by {moved}"
    told = f"{text.points(found.difference.value)} points"
    if found.difference.low is not None and found.difference.high is not None:
        low, high = text.points(found.difference.low), text.points(found.difference.high)
        told += f", {low} to {high}"
    return f"with no difference of word error rate shown ({told})"
