"""What must exist before variants are measured, made in a process that ends before they start.

A merged checkpoint is written once and then loaded as one would deploy it, so that load time and
memory of the ``merged`` variants are those of a plain model and not of the merging.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.variants.text import Contender, Variant
from finetune.core.errors import KotuneError
from finetune.core.worker_process import WorkerFailed, WorkerProcess
from finetune.models.source import resolve_base
from finetune.run_folder import Run, open_run, read_rows

Report = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """A variant with its folder, and what is known of it before it runs.

    ``size_bytes`` counts the weights or graph that are loaded from disk, base model included;
    a ``reason`` says why it cannot be measured.
    """

    variant: Variant
    size_bytes: int | None
    adapter_bytes: int | None
    parameters: dict[str, int] | None
    training_time_s: float | None
    reason: str | None = None


def prepare_variants(
    variants: Sequence[Variant],
    contenders: Sequence[Contender],
    scratch: Path,
    *,
    seed: int,
    threads: int,
    timeout_s: float,
    report: Report,
) -> list[Prepared]:
    """Merge adapters and fit the classical baseline into ``scratch``, for variants without folder.

    All of it in one process that is gone afterwards; where a step fails, its variants get the
    reason.
    """
    made: dict[tuple[str, Path], dict[str, Any] | str] = {}
    helper: WorkerProcess | None = None
    for variant in variants:
        key = _recipe_of(variant, contenders)
        if key is None or key in made:
            continue
        target = scratch / f"{len(made)}"
        report(f"preparing {variant.name}")
        helper = helper or WorkerProcess("bench.engines.worker", threads, timeout_s)
        try:
            facts = helper.ask(key[0], run=str(key[1]), target=str(target), seed=seed)
            made[key] = {**facts, "folder": target}
        except WorkerFailed as fault:
            made[key] = str(fault)
            helper.close()
            helper = None
    if helper is not None:
        helper.close()
    return [_describe(one, made.get(_recipe_of(one, contenders))) for one in variants]


def write_merged(run_folder: Path, target: Path) -> dict[str, Any]:
    """Merge a run's adapter, save model and tokenizer; seconds and bytes of the weights."""
    from export.graph.merging import merge_adapter
    from finetune.models.loading import load_tokenizer

    run = open_run(run_folder, verify=False)
    began = time.perf_counter()
    model = merge_adapter(run)
    seconds = time.perf_counter() - began
    model.save_pretrained(target, safe_serialization=True)
    load_tokenizer(run.folder / "model").save_pretrained(target)
    return {"seconds": seconds, "size_bytes": weights_bytes(target)}


def write_tfidf(run_folder: Path, target: Path, seed: int) -> dict[str, Any]:
    """Fit the classical baseline on a run's training rows and save it."""
    from bench.engines.baselines import fit_tfidf, save_tfidf

    run = open_run(run_folder, verify=False)
    rows = read_rows(run, "train")
    began = time.perf_counter()
    model = fit_tfidf(
        rows["text"].tolist(), rows["label"].tolist(), seed=seed, preparation=run.preparation
    )
    seconds = time.perf_counter() - began
    save_tfidf(model, target)
    size = sum(path.stat().st_size for path in target.iterdir())
    parameters = int(model.weights.size + model.bias.size)
    return {"seconds": seconds, "size_bytes": size, "parameters": parameters}


def weights_bytes(folder: Path) -> int:
    """Bytes of the safetensors files directly in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _recipe_of(variant: Variant, contenders: Sequence[Contender]) -> tuple[str, Path] | None:
    """The worker command and the run that make a variant's folder; None where it has one."""
    if variant.runtime in ("merged", "compiled"):
        return "merge", variant.source.run.folder
    if variant.runtime == "onnx" and variant.precision not in variant.source.artifact.precisions:
        return "half", variant.source.artifact.folder
    if variant.runtime == "sklearn":
        return "fit_tfidf", next(one.run.folder for one in contenders if one.run is not None)
    return None


def _describe(variant: Variant, made: dict[str, Any] | str | None) -> Prepared:
    if isinstance(made, str):
        return Prepared(variant, None, None, None, None, reason=made)
    if made is not None:
        variant = dataclasses.replace(variant, folder=made["folder"])
    if variant.runtime == "sklearn":
        count = made["parameters"]
        parameters = {"total": count, "trainable": count}
        return Prepared(variant, made["size_bytes"], None, parameters, round(made["seconds"], 2))
    run = variant.source.run
    adapter = weights_bytes(run.folder / "model") if run and run.method != "full" else None
    return Prepared(
        variant,
        size_bytes=made["size_bytes"] if made else _size_bytes(variant, adapter),
        adapter_bytes=adapter,
        parameters=run.info["parameters"] if run else None,
        training_time_s=round(run.info["training_time_s"], 2) if run else None,
    )


def _size_bytes(variant: Variant, adapter_bytes: int | None) -> int:
    """Bytes on disk of what a variant loads: the graph, or base model and adapter."""
    if variant.runtime in ("onnx", "optimum"):
        model = variant.source.artifact.path(variant.precision)
        parts = model.parent.glob(f"{model.name}*")  # with external data over 2 GB
        return sum(path.stat().st_size for path in parts)
    run = variant.source.run
    if adapter_bytes is None:
        return weights_bytes(run.folder / "model")
    return adapter_bytes + _base_bytes(run)


def _base_bytes(run: Run) -> int:
    """The base model's weights on disk; four bytes a frozen parameter where they are not."""
    told, counted = run.base, run.info["parameters"]
    on_disk = 0
    if told["revision"] is None and not told["random_weights"]:  # not from the hub: a folder
        with contextlib.suppress(KotuneError):  # its worker will say so
            on_disk = weights_bytes(Path(resolve_base(told["source"]).location))
    return on_disk or 4 * (counted["total"] - counted["trainable"])
