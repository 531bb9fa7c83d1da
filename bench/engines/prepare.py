"""What must exist before variants are measured, made in a process that ends before they start.

A merged checkpoint is written once and then loaded as one would deploy it, so that load time and
memory of the ``merged`` variants are those of a plain model and not of the merging.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import KotuneError
from finetune.core.worker_process import WorkerFailed, WorkerProcess

if TYPE_CHECKING:
    from bench.tasks.task import Task
    from bench.variants.contenders import Contender, Variant
    from finetune.run_folder import Run

Report = Callable[[str], None]


@dataclass(frozen=True)
class Making:
    """How folders are made: a key of the engines' MAKERS, what it starts from, its options."""

    step: str
    source: Path
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Two variants with the same key share what is made."""
        return self.step, str(self.source)


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
    task: Task,
    variants: Sequence[Variant],
    contenders: Sequence[Contender],
    scratch: Path,
    *,
    seed: int,
    threads: int,
    timeout_s: float,
    report: Report,
) -> list[Prepared]:
    """Make the folders of variants that have none, in ``scratch``.

    All of it in one process that is gone afterwards; where a step fails, its variants get the
    reason.
    """
    makings = {one.name: task.making(one, contenders) for one in variants}
    made: dict[tuple[str, str], dict[str, Any] | str] = {}
    helper: WorkerProcess | None = None
    for name, making in makings.items():
        if making is None or making.key in made:
            continue
        target = scratch / f"{len(made)}"
        report(f"preparing {name}")
        helper = helper or WorkerProcess("bench.engines.worker", threads, timeout_s)
        try:
            facts = helper.ask(
                "make",
                engines=task.engines,
                step=making.step,
                source=str(making.source),
                target=str(target),
                options={"seed": seed, **making.options},
            )
            made[making.key] = {**facts, "folder": target}
        except WorkerFailed as fault:
            made[making.key] = str(fault)
            helper.close()
            helper = None
    if helper is not None:
        helper.close()
    found = {name: made.get(making.key) if making else None for name, making in makings.items()}
    return [_prepared(task, one, found[one.name]) for one in variants]


def _prepared(task: Task, variant: Variant, made: dict[str, Any] | str | None) -> Prepared:
    if isinstance(made, str):
        return Prepared(variant, None, None, None, None, reason=made)
    return task.describe_prepared(variant, made)


def weights_bytes(folder: Path) -> int:
    """Bytes of the safetensors files directly in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def run_bytes(run: Run) -> int:
    """Bytes on disk of what a run needs to predict: its model, or base model and adapter.

    Four bytes a frozen parameter where the base model is not on disk.
    """
    from finetune.models.source import resolve_base

    own = weights_bytes(run.folder / "model")
    if run.method == "full":
        return own
    told, counted = run.base, run.info.parameters
    on_disk = 0
    if told.revision is None and not told.random_weights:  # not from the hub: a folder
        with contextlib.suppress(KotuneError):  # its worker will say so
            on_disk = weights_bytes(Path(resolve_base(told.source).location))
    return own + (on_disk or 4 * (counted.total - counted.trainable))
