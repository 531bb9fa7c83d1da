"""A plan as a reader wants it: two tables and the lines to change; or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from finetune.planning.memory import MemoryNeed
from finetune.planning.planning import Plan
from finetune.recipes.yaml_text import write_yaml

MIB = 1 << 20
METHOD_OF_ESTIMATE = (
    "Found by running the step on fake tensors, bitsandbytes' operators by the shape rules that "
    "it registers; its 4-bit workspace is a formula: the largest matrix in the compute type."
)


def plan_tables(plan: Plan) -> Iterator[Table | str]:
    """What is printed, in order."""
    yield _memory_table(plan)
    yield _time_table(plan)
    yield METHOD_OF_ESTIMATE
    yield from (f"note: {note}" for note in plan.notes)
    if plan.memory_bytes is not None:
        yield from _fit_lines(plan)


def plan_record(plan: Plan) -> dict[str, Any]:
    """The plan, JSON-ready."""
    return {
        "schema": "kotune.plan/1",
        "recipe": plan.recipe.name,
        "method": plan.recipe.adapter.method,
        "model": plan.recipe.model.source,
        "device": plan.shape.device,
        "precision": plan.shape.precision,
        "rows": plan.shape.rows,
        "length": plan.shape.length,
        "gradient_checkpointing": plan.recipe.training.gradient_checkpointing,
        "memory": plan.need.as_dict(),
        "outside_bytes": plan.outside_bytes,
        "steps": plan.steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "tokens_per_batch": round(plan.tokens_per_batch, 1),
        "padding_share": round(plan.padding_share, 4),
        "training_s": plan.training_s,
        "budget_bytes": plan.memory_bytes,
        "fits": plan.fits,
        "changes": plan.fit.changes if plan.fit else None,
        "peak_after_changes_bytes": plan.fit.need.peak_bytes if plan.fit else None,
        "estimate": METHOD_OF_ESTIMATE,
        "notes": plan.notes,
    }


def mebibytes(count: float) -> str:
    """Bytes in MiB."""
    return f"{count / MIB:,.0f} MiB"


def _memory_table(plan: Plan) -> Table:
    need, training = plan.need, plan.recipe.training
    checkpointing = ", checkpointing" if training.gradient_checkpointing else ""
    table = Table(
        title=f"{plan.recipe.adapter.method} on {plan.recipe.model.source}, {plan.shape.precision} "
        f"on {plan.shape.device}, {plan.shape.rows} × {plan.shape.length} tokens{checkpointing}",
        title_justify="left",
    )
    table.add_column("memory")
    table.add_column("", justify="right")
    share = need.trainable_parameters / need.parameters
    trained = f"{need.trainable_parameters:,} of {need.parameters:,} ({share:.2%})"
    table.add_row("trainable parameters", trained)
    for name, count in _parts(need):
        table.add_row(name, mebibytes(count))
    table.add_section()
    table.add_row("training step, peak", mebibytes(need.step_bytes))
    table.add_row(f"evaluation, {plan.shape.eval_rows} rows", mebibytes(need.evaluation_bytes))
    table.add_row("final predictions in fp32", mebibytes(need.prediction_bytes))
    table.add_section()
    table.add_row(f"peak ({need.phase})", mebibytes(need.peak_bytes), style="bold")
    what = "CUDA context, about" if plan.shape.device == "cuda" else "Python and libraries"
    table.add_row(f"beside it: {what}", mebibytes(plan.outside_bytes))
    return table


def _parts(need: MemoryNeed) -> list[tuple[str, int]]:
    return [
        ("weights", need.weights_bytes),
        ("gradients at the peak", need.gradients_bytes),
        ("optimizer states", need.optimizer_bytes),
        ("activations at the peak", need.activations_bytes),
        ("allocator and libraries' own", need.runtime_bytes),
    ]


def _time_table(plan: Plan) -> Table:
    training = plan.recipe.training
    table = Table()
    table.add_column("time")
    table.add_column("", justify="right")
    effective = training.batch_size * training.gradient_accumulation_steps
    batch = f"{training.batch_size} × {training.gradient_accumulation_steps} = {effective}"
    table.add_row("effective batch", batch)
    table.add_row("training rows", _known(plan.lengths.rows))
    table.add_row("steps, of an epoch", f"{_known(plan.steps)}, {_known(plan.steps_per_epoch)}")
    table.add_row("tokens a micro-batch", f"{plan.tokens_per_batch:,.0f}")
    table.add_row("of them padding", f"{plan.padding_share:.1%}")
    if plan.speed is not None:
        step = plan.speed.micro_batch_s(plan.tokens_per_batch)
        step *= training.gradient_accumulation_steps
        beyond = plan.tokens_per_batch > 1.05 * plan.speed.largest_tokens
        how = f"{plan.speed.steps} real steps" + (", extrapolated" if beyond else "")
        table.add_row(f"a step ({how})", f"{step:.2f} s")
        table.add_row("all steps, evaluations not counted", duration(plan.training_s))
    return table


def _fit_lines(plan: Plan) -> Iterator[str]:
    assert plan.memory_bytes is not None
    room = f"{mebibytes(plan.memory_bytes)}, {mebibytes(plan.outside_bytes)} of it not for training"
    if plan.fit is None:
        yield f"Nothing fits {room}: not even QLoRA with checkpointing, one row at a time."
        return
    if not plan.fit.changes:
        yield f"The recipe fits {room}."
        return
    yield f"To fit {room} (peak then {mebibytes(plan.fit.need.peak_bytes)}), change:"
    nested: dict[str, dict[str, Any]] = {}
    for key, value in plan.fit.changes.items():
        section, name = key.split(".")
        nested.setdefault(section, {})[name] = value
    yield write_yaml(nested).rstrip()
    words = " ".join(f"{key}={_word(value)}" for key, value in plan.fit.changes.items())
    yield f"or on the command line: {words}"
    if plan.recipe.adapter.method == "full" and "adapter.method" in plan.fit.changes:
        yield "Adapters want a higher training.learning_rate than full fine-tuning: 1e-4 to 1e-3."


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever is short."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _known(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
