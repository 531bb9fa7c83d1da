"""Many variants, each in processes of its own, visited in rounds of random order."""

from __future__ import annotations

from collections.abc import Sequence

from bench.instruments.meters import open_gpu
from bench.instruments.timing import free_memory_bytes, plan_blocks, round_orders
from bench.rounds.block import Block, Plan
from bench.rounds.checkpoint import Progress
from bench.rounds.schedule import Schedule
from bench.variants.contenders import Variant

LIBRARY_BYTES = {
    "onnx": 200_000_000,
    "openvino": 300_000_000,
    "sklearn": 350_000_000,
}  # resident once imported
TORCH_BYTES = 800_000_000
CONTEXT_BYTES = 700_000_000  # of a GPU, for each process that uses CUDA
WEIGHT_COPIES = 2.5  # at the peak of loading, with the activations of a text


def measure_variants(variants: Sequence[Variant], plan: Plan) -> Progress:
    """Measure every variant, or go on after the last process that was finished.

    A variant whose worker raises, dies or falls silent gets a ``reason``; the others go on.
    """
    by_name = {variant.name: variant for variant in variants}
    progress = plan.checkpoint.load(list(by_name))
    if progress.blocks:
        plan.report(f"going on after process {len(progress.blocks)}, measured before")
    schedule = Schedule(plan.settings, plan.baseline)
    while schedule.wants_process(len(progress.blocks), progress.variants):
        process = len(progress.blocks)
        alive = [name for name in by_name if progress.variants[name].reason is None]
        order = next(round_orders(alive, (plan.settings.seed, process)))
        shares = memory_shares([by_name[name] for name in alive], plan)
        blocks = plan_blocks(order, shares, 1.0) if order else []
        for index, block in enumerate(blocks):
            where = f"process {process + 1}/{max(process + 1, plan.settings.processes)}"
            where += f", block {index + 1}/{len(blocks)}" if len(blocks) > 1 else ""
            deadline = schedule.deadline(process, len(blocks) - index)
            chosen = [by_name[name] for name in block]
            Block(process, index, chosen, progress, plan, schedule, where, deadline).run()
        progress.blocks.append(blocks)
        plan.checkpoint.save(progress)
    return progress


def memory_shares(variants: Sequence[Variant], plan: Plan) -> dict[str, float]:
    """The share that each variant needs of what is free, of memory or of the GPU's if that is more.

    Without NVML the GPU's memory is taken to hold all.
    """
    room = max(1.0, free_memory_bytes() * plan.settings.memory_share)
    gpu = open_gpu(plan.settings.device)
    free = gpu.free_bytes() if gpu else None
    gpu_room = float("inf") if free is None else max(1.0, free * plan.settings.memory_share)
    shares = {}
    for one in variants:
        size = plan.sizes.get(one.name) or 0
        on_gpu = CONTEXT_BYTES + WEIGHT_COPIES * size if one.device != "cpu" else 0.0
        need = memory_need(one, size) + plan.task.working_bytes(one, plan.settings)
        shares[one.name] = max(need / room, on_gpu / gpu_room)
    return shares


def memory_need(variant: Variant, size_bytes: int) -> int:
    """A cautious guess of a worker's peak resident memory."""
    libraries = LIBRARY_BYTES.get(variant.runtime, TORCH_BYTES)
    return libraries + int(WEIGHT_COPIES * size_bytes)
