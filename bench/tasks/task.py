"""The joint of the benchmark: what its one story asks a task for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.instruments.timing import turns

if TYPE_CHECKING:
    from bench.engines.prepare import Making, Prepared
    from bench.rounds.checkpoint import Measurement
    from bench.settings import BenchSettings
    from bench.variants.contenders import Contender, Variant
    from finetune.core.worker_process import WorkerProcess
    from finetune.recipes.sections import Recipe

Once = Callable[["WorkerProcess", "Measurement"], Iterator[str]]


@dataclass(frozen=True)
class Rows:
    """What every variant is given: texts, or paths of recordings.

    ``test`` rows are answered once, for the accuracy; ``latency`` rows one at a time, in every
    round; ``throughput`` rows in bulk, in batches of ``batch_tokens``, in the first
    ``throughput_rounds`` of each process; ``bulk`` are their positions among the test rows.
    ``lengths_s`` of the latency rows, in seconds, where latencies of different lengths are kept
    apart.
    """

    test: list[str]
    latency: list[str]
    accuracy: bool
    throughput: list[str] = field(default_factory=list)
    bulk: list[int] = field(default_factory=list)
    batch_tokens: int | None = None  # None: each device's own
    throughput_rounds: int = 0
    lengths_s: list[float] | None = None

    def turns(self) -> list[tuple[int, int]]:
        """From where to where each turn of a round goes; a turn has one length."""
        if self.lengths_s is None:
            return turns(len(self.latency))
        found, begin = [], 0
        for _, same in groupby(self.lengths_s):
            count = len(list(same))
            found += [(begin + start, begin + stop) for start, stop in turns(count)]
            begin += count
        return found

    def length_s(self, position: int) -> float | None:
        """Length of a latency row, where lengths are kept apart."""
        return None if self.lengths_s is None else self.lengths_s[position]


class Task(ABC):
    """A guest of ``bench/benchmark.py``: it has no state, and all else comes with what it is given.

    ``engines`` is the module that a worker asks: ``import_libraries`` and ``load_engine`` for a
    variant, ``MAKERS`` for what is made before anything is measured. ``unit`` is what a row is
    called. ``proof_settings`` keep a proof to what it looks at: latency.
    """

    name: ClassVar[str]
    settings: ClassVar[type[BenchSettings]]
    engines: ClassVar[str]
    unit: ClassVar[str]
    proof_settings: ClassVar[tuple[str, ...]]

    @abstractmethod
    def list_variants(
        self, contenders: Sequence[Contender], settings: BenchSettings
    ) -> tuple[list[Variant], list[Variant]]:
        """The default variants, and those that are measured on request."""

    @abstractmethod
    def choose_rows(
        self, contenders: Sequence[Contender], settings: BenchSettings, scratch: Path
    ) -> Rows:
        """Draw the rows, files into ``scratch``; FolderError where the runs have different ones."""

    @abstractmethod
    def describe_rows(self, contenders: Sequence[Contender], rows: Rows) -> dict[str, Any]:
        """The rows' entries of results.json: where they come from, and the truth about them."""

    @abstractmethod
    def describe_answers(self, answers: list[Any]) -> dict[str, Any]:
        """A variant's entry of results.json with its answers to the test rows."""

    @abstractmethod
    def making(self, variant: Variant, contenders: Sequence[Contender]) -> Making | None:
        """How a variant's folder is made; None where it has one."""

    @abstractmethod
    def describe_prepared(self, variant: Variant, made: dict[str, Any] | None) -> Prepared:
        """The variant with its folder and sizes; ``made`` is what its making told."""

    @abstractmethod
    def data_fingerprint(self, recipe: Recipe) -> str:
        """Hash of the rows that a recipe's data are today."""

    def stored_answers(self, variant: Variant, rows: Rows) -> list[Any] | None:
        """Answers to the test rows that training stored, if they are this variant's own."""
        return None

    def once(self, settings: BenchSettings) -> list[Once]:
        """What else each worker is asked, once, in the first process; it yields what to tell."""
        return []

    def working_bytes(self, variant: Variant, settings: BenchSettings) -> int:
        """Memory for activations that the size of the weights says nothing of."""
        return 0

    def group_baselines(self, variants: Sequence[Variant]) -> dict[str, str]:
        """Group → the variant that its others are compared with: the first of each."""
        found: dict[str, str] = {}
        for one in variants:
            if one.group is not None:
                found.setdefault(one.group, one.name)
        return found

    def notes(self, contenders: Sequence[Contender], rows: Rows) -> list[str]:
        """What a reader must know of the runs before any figure."""
        return []
