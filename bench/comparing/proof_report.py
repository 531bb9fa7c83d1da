"""The page of a proof (``bench/comparing/proof.py``): command, machine, table, verdict."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.rounds.compose import plain_command
from bench.statistics.decisions import Estimate
from bench.statistics.latency import half_width
from bench.training.report import facts_lines
from finetune.core.provenance import collect_provenance


@dataclass(frozen=True)
class Repetition:
    """One benchmark: the ratio of the two medians, what it was called, and the foreign load."""

    ratio: Estimate
    floor: float
    finding: str
    rounds: int
    threads: int
    seconds: float
    foreign_cores: float | None


def proof_page(title: str, threads: int, table: Iterable[str], sentences: Sequence[str]) -> str:
    """Markdown for docs/results."""
    command = plain_command(shlex.join(["python", "-m", "bench.comparing.proof", *sys.argv[1:]]))
    environment = {**collect_provenance().as_dict(), "command": command}
    content = {"name": title, "environment": environment, "threads": threads, "note": None}
    lines = [*facts_lines(content), *table, "", " ".join(sentences)]
    return "\n".join(lines)


def repetition_table(found: Sequence[Repetition]) -> Iterator[str]:
    """One row per benchmark."""
    heads = "third / first | 95 % interval | half-width | noise floor | finding"
    yield f"| # | {heads} | rounds | time | load |"
    yield "| ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |"
    for number, one in enumerate(found, start=1):
        load = "" if one.foreign_cores is None else f"{one.foreign_cores:.2f}"
        interval = f"{one.ratio.value:.4f} | {_ends(one.ratio)} | {half_width(one.ratio):.2%}"
        told = f"{one.floor:.2%} | {one.finding} | {one.rounds} | {one.seconds:.0f} s | {load}"
        yield f"| {number} | {interval} | {told} |"


def repetition_line(one: Repetition) -> str:
    """A repetition in one line, for whoever waits."""
    width = f"half-width {half_width(one.ratio):.2%} after {one.seconds:.0f} s"
    return f"{one.finding}, ratio {one.ratio.value:.4f}, {width}"


def cost_table(ratio: Estimate, pairs: int) -> Iterator[str]:
    """One row."""
    yield "| harness / bare | 95 % interval | pairs |"
    yield "| ---: | ---: | ---: |"
    yield f"| {ratio.value:.4f} | {_ends(ratio)} | {pairs} |"


def _ends(ratio: Estimate) -> str:
    if ratio.low is None or ratio.high is None:
        return "–"
    return f"{ratio.low:.4f}–{ratio.high:.4f}"
