"""The joint: what the one story of a fine-tuning asks of its task, and what most tasks answer.

A task is a folder here and a line in registry.py. It finds what it works with (a Job), builds the
model and its batches from it (Built), makes the Trainer, and writes what the training left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState

from finetune import run_folder
from finetune.adapters.attach import count_parameters
from finetune.checks.signs import Sign, report_signs
from finetune.checks.trial import Way, settle_way, take_step
from finetune.core.documents import write_document
from finetune.core.errors import FolderError
from finetune.core.processes import is_sharded, process_count
from finetune.core.provenance import PROVENANCE_SCHEMA, Provenance, collect_provenance
from finetune.data.summary import DATA_SCHEMA, DataSummary
from finetune.hardware.frozen_base import Originals
from finetune.loop.checkpoints import Checkpoint
from finetune.loop.ledger import BatchShape, Ledger
from finetune.loop.progress import Watch
from finetune.loop.resumable import BEST, ResumableTrainer
from finetune.loop.trainer_setup import training_history
from finetune.models.source import BaseModel
from finetune.recipes.sections import Recipe
from finetune.run_records import METRICS_SCHEMA, Course, HistoryPoint, RunMetrics
from finetune.tasks.registry import TASKS

Report = Callable[[str], None]
Figures = dict[str, dict[str, float]]  # split → figure → value


@dataclass(frozen=True)
class Job:
    """What a run works with, once everything was found and checked; a task adds its data."""

    recipe: Recipe
    base: BaseModel | None  # None: from scratch
    device: str
    precision: str
    signs: tuple[Sign, ...] = field(default=(), kw_only=True)  # found amiss before training

    @property
    def data_fingerprint(self) -> str:
        """Hash of the rows."""
        raise NotImplementedError

    @property
    def changeable(self) -> frozenset[str]:
        """Keys of ``training`` that may change while the run goes on."""
        return frozenset()


@dataclass(frozen=True)
class Built:
    """The model ready to train; ``originals`` are frozen weights that wait in a file.

    ``job`` is in the precision it trains in, which need not be the one it was prepared with.
    """

    job: Job
    model: Any
    originals: Originals | None


@dataclass(frozen=True)
class Outcome:
    """What a finished training left in its last checkpoint."""

    state: TrainerState
    ledger: Ledger
    device: str

    @classmethod
    def read(cls, checkpoint: Checkpoint, device: str) -> Outcome:
        """Trainer's state and the ledger."""
        state = TrainerState.load_from_json(str(checkpoint.folder / "trainer_state.json"))
        return cls(state, Ledger(**checkpoint.ledger), device)

    @property
    def course(self) -> Course:
        """Starts, processes, and what lack of memory changed."""
        return Course(
            starts=self.ledger.starts,
            processes=process_count(),
            micro_batch=self.ledger.micro_batch,
            gradient_accumulation_steps=self.ledger.accumulation,
            out_of_memory=tuple(self.ledger.out_of_memory),
        )

    @property
    def figures(self) -> dict[str, Any]:
        """Steps, times and peaks of all starts together."""
        on_gpu = self.device == "cuda"
        return {
            "training_time_s": self.ledger.training_time_s,
            "steps": self.state.global_step,
            "step_times_s": self.ledger.step_times_s,
            "peak_training_memory_bytes": self.ledger.peak_memory_bytes,
            "peak_training_vram_bytes": self.ledger.peak_vram_bytes if on_gpu else None,
            "training": self.course.as_dict(),
        }


def build_tried(
    job: Any,
    build: Callable[[Any, Recipe], Any],
    step: Callable[[Any], tuple[Any, Callable[[Any, Any], torch.Tensor]]],
    report: Report,
) -> Any:
    """What ``build`` makes of the job in its precision and a recipe with its kernels, tried.

    ``step`` gives a batch and how the loss is had of model and batch. Where that step fails,
    ``auto`` gives way, with a sign in the job of what was built. Raises RecipeError, ModelError.
    """
    training = job.recipe.training
    on_cpu = job.device == "cpu"

    def build_way(way: Way) -> Any:
        changed = training.model_copy(update={"cpu_kernels": way.kernels} if on_cpu else {})
        recipe = job.recipe.model_copy(update={"training": changed})
        return build(replace(job, precision=way.precision), recipe)

    def try_way(built: Any, way: Way) -> None:
        batch, loss = step(built)
        take_step(built.model, batch, loss, device=job.device, precision=way.precision)

    kernels = training.cpu_kernels if on_cpu else "library"
    first = Way(kernels, job.precision)
    if is_sharded():
        return build_way(first)
    settled = settle_way(first, build_way, try_way, kernels=kernels, precision=training.precision)
    report_signs(settled.signs, report)
    built = settled.built
    return replace(built, job=replace(built.job, signs=(*job.signs, *settled.signs)))


@dataclass(frozen=True)
class Finished:
    """A finished training found on disk, as studies compare it."""

    recipe: Recipe
    method: str
    data_fingerprint: str
    steps: int
    training_time_s: float
    figures: Figures


@dataclass(frozen=True)
class Measure:
    """A figure that seeds are compared by: its name and format in a table, and its range.

    ``within``: as ``metrics.intervals.mean_interval`` takes it.
    """

    name: str
    form: str
    within: str
    shown: bool = True


class Task(ABC):
    """What differs from task to task. ``document`` is the file that a folder is finished with."""

    document = "run.json"
    folder_kind = "run"
    streams = False  # whether its evaluation takes a model whose weights wait on the host
    keeps = BEST  # the weights of the last checkpoint that the folder gets
    measures: Mapping[str, Measure] = MappingProxyType({})  # of Figures

    def settle(self, recipe: Any) -> Any:
        """The recipe with what it leaves to its data, such as the classes; all else as it is."""
        return recipe

    @abstractmethod
    def prepare(self, recipe: Any) -> Job:
        """Find base model, device and data; the cheap mistakes are told first."""

    @abstractmethod
    def report_data(self, job: Any, report: Report) -> None:
        """Tell what was read."""

    @abstractmethod
    def build(self, job: Any, work: Path, report: Report) -> Built:
        """The model ready to train, with its batches; called again where FSDP took it apart."""

    @abstractmethod
    def watch(self, job: Any, built: Any) -> Watch:
        """What is told of the training, and by which figure its best is kept."""

    @abstractmethod
    def batch_shape(self, job: Any, built: Any) -> BatchShape:
        """The micro-batch to begin with."""

    @abstractmethod
    def make_trainer(
        self,
        job: Any,
        built: Any,
        ledger: Ledger,
        callbacks: Sequence[TrainerCallback],
        checkpoints: Path,
    ) -> ResumableTrainer:
        """Batches, loss and metrics, ready to begin or to go on with the ledger's micro-batch."""

    @abstractmethod
    def write(self, job: Any, built: Any, outcome: Outcome, folder: Path, report: Report) -> None:
        """Everything the folder holds, ``document`` last."""

    @abstractmethod
    def read_finished(self, folder: Path) -> Finished | None:
        """What such a folder says of its training; None where it holds none."""

    def sample_answers(self, job: Any, built: Any) -> Any:  # noqa: B027  not every task has some
        """Answers of the trained model that its folder does not hold, for ``check_stored``."""

    def check_stored(self, job: Any, folder: Path, sample: Any) -> None:  # noqa: B027
        """Read a written folder back and hold it against what was measured; raises GateError."""

    def check_target(self, folder: Path, *, overwrite: bool) -> None:
        """Refuse to replace a finished one unasked, and anything else ever; raises FolderError."""
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        if not self.is_finished(folder):
            raise FolderError(
                f"output is in use by something that is not a {self.folder_kind}",
                received=folder,
                next_step="output=…",
            )
        if not overwrite:
            raise FolderError(
                f"this {self.folder_kind} exists already",
                received=folder,
                next_step="--overwrite, or another name=… or output=…",
            )
        if foreign := self.foreign_files(folder):
            raise FolderError(
                f"--overwrite would remove what is not of the {self.folder_kind}",
                received=f"{folder}: {', '.join(foreign[:5])}",
                next_step="move it elsewhere, or another name=… or output=…",
            )

    def foreign_files(self, folder: Path) -> list[str]:
        """Files in a finished folder that this task did not write there."""
        return []

    def is_finished(self, folder: Path) -> bool:
        """Whether ``folder`` is what this task writes."""
        return (folder / self.document).is_file()


class RunTask(Task):
    """A task that leaves a run folder: model, rows, predictions, metrics and run.json."""

    @abstractmethod
    def data_summary(self, job: Any, built: Any) -> DataSummary:
        """What data.json says."""

    @abstractmethod
    def save_model(self, job: Any, built: Any, folder: Path) -> None:
        """What was trained, with what is needed to use it, in safetensors."""

    @abstractmethod
    def evaluate(self, job: Any, built: Any, folder: Path, report: Report) -> RunMetrics:
        """Metrics of validation and test rows in fp32; rows and predictions are stored."""

    def answer_signs(self, job: Any, metrics: RunMetrics) -> list[Sign]:
        """What the answers say of the model beside their figures."""
        return []

    @abstractmethod
    def describe(self, job: Any, built: Any) -> dict[str, Any]:
        """What run.json says of the model beside what every run has."""

    def write(self, job: Any, built: Any, outcome: Outcome, folder: Path, report: Report) -> None:
        """Everything the run folder holds, run.json last."""
        recipe, state = job.recipe, outcome.state
        write_document(folder / "data.json", DATA_SCHEMA, self.data_summary(job, built))
        parameters = count_parameters(built.model)
        self.save_model(job, built, folder / "model")
        metrics = self.evaluate(job, built, folder, report)
        signs = [*job.signs, *self.answer_signs(job, metrics)]
        report_signs(signs[len(job.signs) :], report)
        metric = self.watch(job, built).metric
        course = {
            "history": tuple(map(HistoryPoint.model_validate, training_history(state.log_history))),
            "best": {"step": state.best_global_step, metric: state.best_metric},
        }
        write_document(folder / "metrics.json", METRICS_SCHEMA, metrics.model_copy(update=course))
        write_provenance(folder, recipe.seed, outcome.course)
        weights = list((folder / "model").glob("*.safetensors"))
        base = job.base or BaseModel("from scratch", "", random_weights=True, seed=recipe.seed)
        info = {
            "name": recipe.name,
            "task": recipe.task,
            "method": recipe.method,
            "base": base.as_dict(),
            "device": job.device,
            "precision": job.precision,
            "evaluation_precision": "fp32",
            "threads": torch.get_num_threads(),
            "data_fingerprint": job.data_fingerprint,
            "weights_bytes": sum(path.stat().st_size for path in weights),
            "parameters": {"total": parameters.total, "trainable": parameters.trainable},
            **self.describe(job, built),
            "signs": [one.as_dict() for one in signs],
            **outcome.figures,
        }
        run_folder.seal_run(folder, recipe, info)

    def foreign_files(self, folder: Path) -> list[str]:
        """What the run does not list; raises FolderError where its seal does not fit."""
        return run_folder.foreign_files(run_folder.open_run(folder))

    def read_finished(self, folder: Path) -> Finished | None:
        """What the run folder says of its training; None where it is none yet."""
        if not self.is_finished(folder):
            return None
        run = run_folder.open_run(folder)
        return Finished(
            recipe=run.recipe,
            method=run.method,
            data_fingerprint=run.info.data_fingerprint,
            steps=run.info.steps,
            training_time_s=run.info.training_time_s,
            figures=self.figures(run_folder.read_metrics(run)),
        )

    @abstractmethod
    def figures(self, metrics: RunMetrics) -> Figures:
        """The figures of metrics.json that seeds are compared by."""


def write_provenance(folder: Path, seed: int, course: Course) -> Provenance:
    """Write provenance.json of a training that went so."""
    found = collect_provenance(seed).model_copy(update={"training": course})
    write_document(folder / "provenance.json", PROVENANCE_SCHEMA, found)
    return found


def task_of(recipe: Recipe) -> Task:
    """The task that a recipe names, its libraries loaded."""
    module, _, name = TASKS[recipe.task].place.partition(":")
    return getattr(import_module(module), name)()
