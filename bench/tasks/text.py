"""Text classification as a guest of the benchmark: reviews in, class ids out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.engines.prepare import Making, Prepared, run_bytes, weights_bytes
from bench.instruments.timing import choose_rows
from bench.rounds.compose import data_facts
from bench.settings import BenchSection
from bench.tasks.task import Once, Rows, Task
from bench.variants import text as variants
from bench.variants.contenders import (
    Contender,
    Variant,
    common_rows,
    is_exported,
    runs_of,
)
from finetune.core.preparation import FOLDED
from finetune.run_folder import Run, logits_of, read_predictions
from finetune.tasks.registry import TEXT

if TYPE_CHECKING:
    import pandas as pd

    from bench.rounds.checkpoint import Measurement
    from finetune.core.worker_process import WorkerProcess
    from finetune.recipes.text import FinetuneRecipe

RANDOM_WEIGHTS = "Base models have random weights: speed and memory only, no accuracy is claimed."
FROM_SCRATCH = "Trained from random weights, without pretraining: "


@dataclass(frozen=True)
class TestRows(Rows):
    """Reviews; ``positions`` are those of the test rows in the runs' test split."""

    truth: list[int] = dataclasses.field(default_factory=list)
    seen_in_training: list[int] = dataclasses.field(default_factory=list)
    positions: np.ndarray = dataclasses.field(default_factory=lambda: np.arange(0))

    __test__ = False  # pytest takes the name for one of its own


class TextTask(Task):
    """Reviews are classified; accuracy, F1 and the classes' agreement are what is compared."""

    name = TEXT
    settings = BenchSection
    engines = "bench.engines.text"
    unit = "review"
    proof_settings = ("accuracy=false", "throughput_rows=0")

    def list_variants(
        self, contenders: Sequence[Contender], settings: BenchSection
    ) -> tuple[list[Variant], list[Variant]]:
        """The default variants, and those that are measured on request (bf16, Optimum)."""
        return variants.list_variants(contenders, device=settings.device)

    def choose_rows(
        self, contenders: Sequence[Contender], settings: BenchSection, scratch: Path
    ) -> TestRows:
        """Draw the rows with ``settings.seed``; FolderError where the runs were tested on others.

        Where a base model has random weights, accuracy is claimed only if ``settings`` asks for
        it.
        """
        runs = runs_of(contenders)
        frame = common_rows(runs, rows_alike, lambda run: run.labels)
        positions = choose_rows(len(frame), settings.test_rows, settings.seed)
        frame = frame.iloc[positions]
        texts = frame["text"].tolist()
        random_weights = any(run.base.random_weights for run in runs)
        latency = choose_rows(len(texts), settings.latency_rows, settings.seed + 1)
        bulk = choose_rows(len(texts), settings.throughput_rows, settings.seed + 2)
        return TestRows(
            test=texts,
            latency=[texts[row] for row in latency],
            throughput=[texts[row] for row in bulk],
            accuracy=not random_weights if settings.accuracy is None else settings.accuracy,
            bulk=bulk.tolist(),
            batch_tokens=settings.throughput_batch_tokens,
            throughput_rounds=settings.throughput_rounds,
            truth=frame["label"].astype(int).tolist(),
            seen_in_training=frame["seen_in_training"].astype(int).tolist(),
            positions=positions,
        )

    def describe_rows(self, contenders: Sequence[Contender], rows: TestRows) -> dict[str, Any]:
        """Classes, where the rows come from, and their right classes."""
        return {
            "labels": list(runs_of(contenders)[0].labels),
            "data": data_facts(contenders, rows),
            "truth": rows.truth if rows.accuracy else [],
            "seen_in_training": rows.seen_in_training if rows.accuracy else [],
        }

    def describe_answers(self, answers: list[int]) -> dict[str, Any]:
        """Class ids."""
        return {"predicted": answers}

    def notes(self, contenders: Sequence[Contender], rows: Rows) -> list[str]:
        """Which base models have random weights, and what that means."""
        runs = [one.run for one in contenders if one.run is not None]
        scratch = [run.name for run in runs if run.base.random_weights]
        if not scratch:
            return []
        return [FROM_SCRATCH + ", ".join(scratch) if rows.accuracy else RANDOM_WEIGHTS]

    def data_fingerprint(self, recipe: FinetuneRecipe) -> str:
        """Hash of the reviews that a recipe's data are today."""
        from finetune.data.reviews import load_corpus

        prepare = recipe.model.preparation.of_texts
        return load_corpus(recipe.data, recipe.seed, prepare).fingerprint

    def stored_answers(self, variant: Variant, rows: TestRows) -> list[int] | None:
        """Class ids that a run has stored, where PyTorch is to give them again."""
        if not (variant.as_trained and variant.source.run is not None):
            return None
        return stored_predictions(variant.source.run, rows.positions)

    def once(self, settings: BenchSection) -> list[Once]:
        """The grid and the server scenario, where they are asked for."""
        found: list[Once] = []
        if settings.grid:
            found.append(lambda worker, result: measure_grid(worker, result, settings))
        if settings.server:
            found.append(lambda worker, result: measure_server(worker, result, settings))
        return found

    def making(self, variant: Variant, contenders: Sequence[Contender]) -> Making | None:
        """A merged checkpoint, the classical baseline."""
        if variant.runtime in ("merged", "compiled"):
            options = {"base": variants.merge_base(variant.source)}
            return Making("merge", variant.source.run.folder, options)
        if variant.runtime == "sklearn":
            return Making("fit_tfidf", runs_of(contenders)[0].folder)
        return None

    def describe_prepared(self, variant: Variant, made: dict[str, Any] | None) -> Prepared:
        """Sizes of what is loaded, and of the adapter alone."""
        if made is not None:
            variant = dataclasses.replace(variant, folder=made["folder"])
        if variant.runtime == "sklearn":
            count = made["parameters"]
            parameters = {"total": count, "trainable": count}
            return Prepared(
                variant, made["size_bytes"], None, parameters, round(made["seconds"], 2)
            )
        run = variant.source.run
        adapter = weights_bytes(run.folder / "model") if run and run.method != "full" else None
        return Prepared(
            variant,
            size_bytes=made["size_bytes"] if made else _size_bytes(variant),
            adapter_bytes=adapter,
            parameters=run.info.parameters.as_dict() if run else None,
            training_time_s=round(run.info.training_time_s, 2) if run else None,
        )


def measure_grid(
    worker: WorkerProcess, result: Measurement, settings: BenchSection
) -> Iterator[str]:
    """Latency over batch size and length; what to tell of it."""
    cells = {"batches": settings.grid_batches, "lengths": settings.grid_lengths}
    result.grid += worker.ask("grid", **cells)["cells"]
    yield "grid of batch and length"


def measure_server(
    worker: WorkerProcess, result: Measurement, settings: BenchSection
) -> Iterator[str]:
    """The highest rate of Poisson arrivals that holds the bound, without and with batching."""
    for max_batch in (1, settings.server_max_batch):
        found = worker.ask(
            "server",
            max_batch=max_batch,
            bound_ms=settings.server_p99_ms,
            queries=settings.server_queries,
            seed=settings.seed,
        )
        result.server.append(found)
        kind = f"batches up to {max_batch}" if max_batch > 1 else "no batching"
        told = f"{found['rate_per_s']:.3g} queries/s within {settings.server_p99_ms:g} ms"
        yield f"{told}, {kind}"


def rows_alike(frame: pd.DataFrame) -> list[Any]:
    """What makes two test splits the same.

    Texts are folded: runs of before preparations were kept with the run hold theirs so.
    """
    texts = list(map(FOLDED, frame["text"]))
    return [frame["row"].tolist(), frame["label"].tolist(), texts]


def stored_predictions(run: Run, positions: np.ndarray) -> list[int] | None:
    """Class ids the run itself predicted in fp32 for these test rows; None where it did not."""
    if run.info.evaluation_precision != "fp32":
        return None
    logits = logits_of(read_predictions(run, "test"))
    return logits[positions].argmax(axis=1).tolist()


def _size_bytes(variant: Variant) -> int:
    """Bytes on disk of what a variant loads: the graph, or base model and adapter."""
    if is_exported(variant.runtime):
        from export.graph.files import model_bytes

        return model_bytes(variant.source.artifact.path(variant.key))
    return run_bytes(variant.source.run)
