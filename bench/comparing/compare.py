"""Two results side by side: what a change of code, recipe or machine did to every variant.

Accuracy, macro F1 and word error rate are compared on paired rows where both benchmarks used the
same ones, else as two independent samples. Latency, its median and its p95, in speech at every
length of audio, is compared in milliseconds where hardware, threads and timed rows are the same,
else by the speed-up over each benchmark's own baseline, which another machine changes less. A
difference counts where its interval excludes "none" and it exceeds the noise floor of both
benchmarks and the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.report.figures import noise_floor
from bench.report.rows import Row
from bench.report.summary import Summary, summarise
from bench.results.records import Results, Variant
from bench.statistics.decisions import (
    Estimate,
    Finding,
    holm_adjust,
    judge_difference,
    judge_interval,
    ratio_finding,
)
from bench.statistics.f1 import paired_f1_difference, unpaired_f1_difference
from bench.statistics.latency import (
    Samples,
    difference_of,
    median_ratio,
    quantile_ratio,
    ratio_of_ratios,
)
from finetune.core.errors import FolderError
from finetune.metrics.classification import (
    CONFIDENCE,
    confusion_matrix,
    f1_scores,
    paired_difference,
)
from finetune.metrics.word_errors import wer_difference

QUANTILES = {"p50": 0.5, "p95": 0.95}
SIZE_TOLERANCE = 0.01  # a file that grows by less is no regression


@dataclass(frozen=True)
class Change:
    """One figure of a variant, old and new.

    ``change`` is new minus old for accuracy, F1 and error rate (shares), new over old for all
    else; ``basis`` says how it was compared; ``finding`` is "better", "worse" or "tie".
    """

    figure: str
    old: float
    new: float
    change: Estimate
    basis: str
    finding: str
    p_adjusted: float | None = None


@dataclass(frozen=True)
class VariantChange:
    """A variant in both results.

    ``status`` is "compared", "missing", "added", "failed", "failed export", or "failed before".
    """

    name: str
    status: str
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Everything ``kotune compare`` says; ``cautions`` tell where old and new differ beside it."""

    old: str
    new: str
    noise_floor: float
    tolerance: float
    variants: tuple[VariantChange, ...]
    cautions: tuple[str, ...]

    @property
    def regressions(self) -> tuple[str, ...]:
        """What got worse: "NAME: FIGURE", or a variant that is no longer measured."""
        lost = [f"{one.name}: {one.status}" for one in self.variants if _is_lost(one)]
        worse = [
            f"{one.name}: {change.figure}"
            for one in self.variants
            for change in one.changes
            if change.finding == "worse"
        ]
        return (*lost, *worse)


def compare_results(old: Results, new: Results, *, tolerance: float = 0.0) -> Comparison:
    """Compare all variants that either has; ``tolerance`` is a relative change that is allowed.

    Raises FolderError where the two are of different tasks.
    """
    if old.task != new.task:
        raise FolderError(
            "the results are of different tasks, which nothing compares",
            received=f"{old.name}: {old.task}; {new.name}: {new.task}",
        )
    before, after = summarise(old), summarise(new)
    floor = max(_floor(before), _floor(after))
    same_rows, same_machine = _same_rows(old, new), _same_machine(old, new)
    names = [row.name for row in before.rows if not row.is_noise_pair]
    names += [row.name for row in after.rows if not row.is_noise_pair and row.name not in names]
    one_by_one = [
        _compare_variant(name, before, after, max(floor, tolerance), same_rows, same_machine)
        for name in names
    ]
    variants = _adjust(one_by_one)
    cautions = _cautions(old, new, same_rows, same_machine)
    return Comparison(old.name, new.name, floor, tolerance, tuple(variants), tuple(cautions))


def _is_lost(one: VariantChange) -> bool:
    return one.status in ("missing", "failed", "failed export")


def _floor(summary: Summary) -> float:
    return noise_floor(summary.noise_pair.speedup if summary.noise_pair else None)


def _same_rows(old: Results, new: Results) -> bool:
    """Whether row i of one is row i of the other: the same data, drawn with the same seed.

    What recordings say tells them apart, in files of an earlier version the only thing that does.
    """
    fingerprints = {old.data.fingerprint, new.data.fingerprint} - {None}
    if old.references and new.references:
        return old.references == new.references and len(fingerprints) < 2
    keys = ("seed", "test_rows")
    return (
        old.data.fingerprint is not None
        and old.data.fingerprint == new.data.fingerprint
        and old.truth == new.truth
        and all(old.settings.get(key) == new.settings.get(key) for key in keys)
    )


def _same_machine(old: Results, new: Results) -> bool:
    """Whether milliseconds of one may be held against the other's."""
    hardware = [one.environment.get("hardware") or {} for one in (old, new)]
    drawn = "test_rows" if new.references or new.settings.get("lengths_s") else "latency_rows"
    keys = ("threads", "seed", drawn)
    return (
        all(hardware[0].get(key) == hardware[1].get(key) for key in ("cpu", "cores", "gpus"))
        and old.data.fingerprint == new.data.fingerprint
        and all(old.settings.get(key) == new.settings.get(key) for key in keys)
    )


def _cautions(old: Results, new: Results, same_rows: bool, same_machine: bool) -> list[str]:
    told, timed = [], "recordings" if new.settings.get("lengths_s") else "reviews"
    if old.truth and new.truth and not same_rows:
        told.append("The test rows are not the same: accuracies are compared unpaired.")
    if old.references and new.references and not same_rows:
        told.append("The recordings are not the same: error rates are compared unpaired.")
    if not same_machine:
        told.append(
            f"Hardware, threads or timed {timed} differ: speed is compared relative to each "
            "benchmark's own baseline, not in milliseconds."
        )
        if old.baseline != new.baseline:
            told.append("The baselines differ too: speed is not compared.")
    for name, results in (("old", old), ("new", new)):
        if results.environment.get("git", None) and results.environment["git"].get("dirty"):
            told.append(f"The {name} results come from a tree with uncommitted changes.")
    return told


def _compare_variant(
    name: str, before: Summary, after: Summary, floor: float, same_rows: bool, same_machine: bool
) -> VariantChange:
    old, new = (
        next((row for row in one.rows if row.name == name), None) for one in (before, after)
    )
    if old is None or not _is_sound(old):
        return VariantChange(name, "added" if new and _is_sound(new) else "failed before")
    if new is None or not _is_sound(new):
        return VariantChange(name, _how_lost(new))
    found = [
        _accuracy(name, before.results, after.results, same_rows),
        _f1_macro(name, before.results, after.results, same_rows),
        _errors(old, new, before.results, after.results, same_rows),
        *_latencies(old, new, before, after, floor, same_machine),
        _throughput(before.results, after.results, name, floor) if same_machine else None,
        _plain("size", old, new, lambda row: row.size_bytes, SIZE_TOLERANCE),
    ]
    return VariantChange(name, "compared", tuple(change for change in found if change))


def _is_sound(row: Row) -> bool:
    """Whether a variant ran, and passed the checks of its export."""
    return not (row.failed or row.export_failed)


def _how_lost(row: Row | None) -> str:
    if row is None:
        return "missing"
    return "failed" if row.failed else "failed export"


def _variant(results: Results, name: str) -> Variant:
    return next(one for one in results.variants if one.name == name)


def _accuracy(name: str, old: Results, new: Results, same_rows: bool) -> Change | None:
    """New minus old; the finding is set once all p-values are known (``_adjust``)."""
    right = []
    for results in (old, new):
        predicted = _variant(results, name).predicted
        if not predicted or not results.truth:
            return None
        right.append(np.array(predicted) == np.array(results.truth))
    shares = [float(one.mean()) for one in right]
    if same_rows:
        pair = paired_difference(right[1], right[0])
        change, p, basis = Estimate(pair.difference, *pair.interval), pair.p_value, "same rows"
    else:
        change, p = unpaired_difference(right[1], right[0])
        basis = "different rows"
    return Change("accuracy", *shares, change, basis, "tie", p)


def unpaired_difference(right: np.ndarray, base: np.ndarray) -> tuple[Estimate, float]:
    """Difference of two independent shares with Newcombe's interval (1998), and its p-value.

    The test is Agresti and Caffo's (2000), statsmodels' default.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep, test_proportions_2indep

    counts = int(right.sum()), len(right), int(base.sum()), len(base)
    low, high = confint_proportions_2indep(*counts, method="newcomb", alpha=1 - CONFIDENCE)
    p = float(test_proportions_2indep(*counts, method="agresti-caffo").pvalue)
    difference = counts[0] / counts[1] - counts[2] / counts[3]
    return Estimate(difference, float(low), float(high)), p


def _f1_macro(name: str, old: Results, new: Results, same_rows: bool) -> Change | None:
    """New minus old; judged, as accuracies are, once all p-values are known."""
    given = []
    for results in (old, new):
        predicted = _variant(results, name).predicted
        if not predicted or not results.truth:
            return None
        given.append((np.array(results.truth), np.array(predicted), len(results.labels)))
    shares = [float(f1_scores(confusion_matrix(*one)).macro) for one in given]
    (base_truth, base, _), (truth, own, _) = given
    if same_rows:
        change, p = paired_f1_difference(truth, own, base)
    else:
        change, p = unpaired_f1_difference(truth, own, base_truth, base)
    basis = "same rows" if same_rows else "different rows"
    return Change("f1_macro", *shares, change, basis, "tie", p)


def _errors(old: Row, new: Row, before: Results, after: Results, same_rows: bool) -> Change | None:
    """New word error rate minus old: its interval decides, as it does in the report."""
    if old.wer is None or new.wer is None:
        return None
    if same_rows:
        transcripts = [_variant(one, new.name).transcripts for one in (after, before)]
        found = wer_difference(after.references, *transcripts)
        change, basis = Estimate(found.difference, *found.interval), "same recordings"
    else:
        change, basis = difference_of(new.wer, old.wer), "different recordings"
    finding = judge_interval(change.low, change.high, more_is_better=False)
    return Change("word error rate", old.wer.value, new.wer.value, change, basis, finding)


def _latencies(
    old: Row, new: Row, before: Summary, after: Summary, floor: float, same_machine: bool
) -> Iterator[Change | None]:
    """Percentiles of new over old, in speech at every length of audio that both timed."""
    baselines = [one.results.baseline for one in (before, after)]
    if old.group is not None:
        baselines = [one.results.baselines[old.group] for one in (before, after)]
    if not same_machine and baselines[0] != baselines[1]:
        return
    own, base = (old, new), [_row(*pair) for pair in zip((before, after), baselines, strict=True)]
    for length in list(old.lengths) or [None]:
        samples = [_timed(row, length) for row in own]
        bases = [_timed(row, length) for row in base]
        pairs = [_timed(one.noise_pair, length) for one in (before, after)]
        for figure, quantile in QUANTILES.items():
            noise = [_quantile_floor(*one, quantile) for one in zip(bases, pairs, strict=True)]
            name = figure if length is None else f"{figure} at {length} s"
            against = None if same_machine or old.is_baseline else bases
            if same_machine or against is not None:
                yield _latency(name, samples, against, quantile, max(floor, *noise))


def _latency(
    figure: str,
    samples: Sequence[Samples | None],
    bases: Sequence[Samples | None] | None,
    quantile: float,
    floor: float,
) -> Change | None:
    """Old and new against each other, or each against its own of ``bases`` first."""
    if None in samples or (bases is not None and None in bases):
        return None
    times = [float(np.quantile(one.values, quantile)) for one in samples]
    if bases is None:
        ratio = quantile_ratio(samples[1], samples[0], quantile, together=False)
        basis = "milliseconds"
    else:
        gains = [quantile_ratio(*one, quantile) for one in zip(bases, samples, strict=True)]
        ratio, basis = ratio_of_ratios(*gains), "relative to the baseline"
    words: dict[str, Finding] = {"higher": "worse", "lower": "better", "tie": "tie"}
    return Change(figure, *times, ratio, basis, words[ratio_finding(ratio, floor)])


def _row(summary: Summary, name: str) -> Row | None:
    return next((row for row in summary.rows if row.name == name), None)


def _timed(row: Row | None, length: str | None) -> Samples | None:
    """A row's latencies, of one length of audio where there are several."""
    if row is None or length is None:
        return row and row.latency_samples
    return row.lengths[length].samples if length in row.lengths else None


def _quantile_floor(base: Samples | None, pair: Samples | None, quantile: float) -> float:
    """What the baseline's two measurements differ by at a percentile; 0 without a second one."""
    if base is None or pair is None:
        return 0.0
    times = [float(np.quantile(one.values, quantile)) for one in (base, pair)]
    return noise_floor(Estimate(times[0] / times[1], None, None))


def _throughput(old: Results, new: Results, name: str, floor: float) -> Change | None:
    from bench.statistics.latency import collect_samples

    samples = []
    for results in (old, new):
        passes = _variant(results, name).throughput
        if not passes:
            return None
        samples.append(
            collect_samples((one.process, one.round, [one.rows / one.seconds]) for one in passes)
        )
    ratio = median_ratio(samples[1], samples[0], together=False)
    medians = [float(np.median(one.values)) for one in samples]
    words = {"higher": "better", "lower": "worse", "tie": "tie"}
    return Change("throughput", *medians, ratio, "rows/s", words[ratio_finding(ratio, floor)])


def _plain(
    figure: str, old: Row, new: Row, value: Callable[[Row], float | None], tolerance: float
) -> Change | None:
    """A figure without noise: smaller is better."""
    sizes = value(old), value(new)
    if not sizes[0] or sizes[1] is None:
        return None
    ratio = sizes[1] / sizes[0]
    finding = "worse" if ratio > 1 + tolerance else "better" if ratio < 1 - tolerance else "tie"
    return Change(figure, *sizes, Estimate(ratio, None, None), "bytes", finding)


def _adjust(variants: list[VariantChange]) -> list[VariantChange]:
    """Holm over all variants' accuracies, and over their F1, and what each then says."""
    for figure in ("accuracy", "f1_macro"):
        variants = _adjust_figure(variants, figure)
    return variants


def _adjust_figure(variants: list[VariantChange], figure: str) -> list[VariantChange]:
    tested = [c for one in variants for c in one.changes if c.figure == figure]
    adjusted = iter(holm_adjust(change.p_adjusted for change in tested).tolist())
    return [
        replace(
            one,
            changes=tuple(
                _judge(change, next(adjusted)) if change.figure == figure else change
                for change in one.changes
            ),
        )
        for one in variants
    ]


def _judge(change: Change, p_adjusted: float) -> Change:
    finding = judge_difference(change.change.value, p_adjusted)
    return replace(change, p_adjusted=p_adjusted, finding=finding)
