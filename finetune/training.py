"""The one story of a fine-tuning: a recipe in, a finished folder out, on transformers.Trainer.

What differs from task to task it asks the recipe's Task (finetune/tasks/task.py). Killed,
interrupted or out of memory, a training goes on from its last checkpoint (finetune/loop/drive.py).
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from transformers import TrainerCallback, set_seed

from finetune.checks.signs import report_signs
from finetune.core.exactness import TF32_OVERRIDE
from finetune.core.files import publish_folder
from finetune.core.output_lock import lock_output
from finetune.core.processes import (
    is_main_process,
    is_sharded,
    join_processes,
    leave_processes,
    wait_for_processes,
)
from finetune.core.provenance import git_state
from finetune.hardware.gpu import gpu_notes, let_segments_grow
from finetune.hardware.precision import (
    bound_primitive_caches,
    choose_device,
    exact_fp32,
    tf32_products,
)
from finetune.hardware.streaming import outgrows
from finetune.loop.checkpoints import Checkpoint, disk_errors
from finetune.loop.drive import train_to_end
from finetune.loop.ledger import Ledger, forget_peaks, forget_vram_peak
from finetune.loop.out_of_memory import told_out_of_memory
from finetune.loop.resumable import ResumableTrainer, load_weights
from finetune.loop.work_folder import (
    announce_publication,
    clear_work,
    finish_publication,
    open_work,
    schedule,
)
from finetune.recipes.methods import METHODS
from finetune.recipes.sections import Recipe
from finetune.tasks.task import Built, Job, Outcome, Report, Task, task_of

PREDICTING = "in the final predictions; the training itself is kept"


@exact_fp32()
def finetune(recipe: Recipe, *, overwrite: bool = False, report: Report = print) -> Path:
    """Train what the recipe says and publish its folder, whole or not at all.

    An unfinished run of the same recipe goes on where it was. Raises RecipeError, DataError,
    ModelError or FolderError before anything heavy begins, KeyboardInterrupt once a training
    that was asked to stop has saved itself.
    """
    task, target = task_of(recipe), Path(recipe.folder)
    if recipe.training.tf32:
        os.environ.pop(TF32_OVERRIDE, None)  # read when CUDA starts, and there the last word
    report = report if is_main_process() else _say_nothing
    git_state()
    bound_primitive_caches()
    let_segments_grow()
    forget_peaks()
    join_processes(choose_device(recipe.training.device))
    recipe = task.settle(recipe)
    if finish_publication(target, task.document, recipe, report):
        return target
    task.check_target(target, overwrite=overwrite)
    job = task.prepare(recipe)
    task.report_data(job, report)
    for line in gpu_notes(recipe.training.device, job.device):
        report(line)
    report_signs(job.signs, report)
    for line in recipe.unused:
        report(f"  {line}")
    with lock_output(target) if is_main_process() else nullcontext():
        task.check_target(target, overwrite=overwrite)  # another process may just have written it
        return _train_and_publish(task, job, target, report)


def _train_and_publish(task: Task, job: Job, target: Path, report: Report) -> Path:
    """From a job whose output is held to its folder; out of memory is told with what to try."""
    recipe = job.recipe
    work = open_work(target, job, report)
    wait_for_processes()
    set_seed(recipe.seed)
    with told_out_of_memory(recipe, "while the model was built"):
        built = task.build(job, work, report)
    job = built.job
    forget_vram_peak()
    with (
        told_out_of_memory(recipe, "in the training"),
        tf32_products(recipe.training.tf32 and job.device == "cuda"),
    ):
        checkpoint = train_job(task, job, built, work, report)
    leave_processes()
    if not is_main_process():
        return target
    if is_sharded():
        built = task.build(job, work, _say_nothing)
    if built.originals is not None:
        with told_out_of_memory(recipe, PREDICTING):
            _give_back(task, built, checkpoint.ledger.get("peak_vram_bytes"))
    load_weights(built.model, checkpoint.folder / task.keeps)
    with (
        told_out_of_memory(recipe, PREDICTING),
        disk_errors(work / "steps"),
        publish_folder(target, workplace=work) as folder,
    ):
        shutil.copytree(work / "tensorboard", folder / "tensorboard")
        task.write(job, built, Outcome.read(checkpoint, job.device), folder, report)
        sample = task.sample_answers(job, built)
        del built
        gc.collect()  # two models need not fit
        task.check_stored(job, folder, sample)
        announce_publication(work, folder, task.document)
    clear_work(target)
    report(f"{task.folder_kind} folder {target}")
    return target


def _give_back(task: Task, built: Built, peak_vram_bytes: int | None) -> None:
    """The base in fp32 again, on the host where that is more than a GPU's training needed.

    Each layer then goes to the GPU while it predicts (``finetune/hardware/streaming.py``).
    """
    quantised = METHODS[built.job.recipe.method].quantised
    if task.streams and not quantised and outgrows(built.model, peak_vram_bytes):
        built.model.to("cpu")
    built.originals.give_back(built.model)


def train_job(
    task: Task,
    job: Job,
    built: Built,
    work: Path,
    report: Report,
    callbacks: Sequence[TrainerCallback] = (),
) -> Checkpoint:
    """The checkpoint of the finished training, reached now or in an earlier start.

    Raises what ``train_to_end`` raises.
    """

    def build(ledger: Ledger, own: Sequence[TrainerCallback]) -> ResumableTrainer:
        return task.make_trainer(job, built, ledger, [*own, *callbacks], work / "steps")

    shape = task.batch_shape(job, built)
    fresh = Ledger(shape.micro_batch, shape.accumulation, schedule=schedule(job))
    return train_to_end(build, fresh, task.watch(job, built), work, report)


def _say_nothing(line: str) -> None:
    """The report of every process but the first."""
