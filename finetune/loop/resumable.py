"""A Trainer that goes on from its checkpoints bit for bit, and never pickles.

What Trainer itself forgets is kept too: the loss summed since the last log line, the patience
already used up, whether training was at its end. Weights and optimizer of a model that FSDP spread
over processes are gathered and spread again: every process calls ``full_…`` and ``load_full_…``
together, and the whole stands in the first one's memory only.
"""

from __future__ import annotations

import logging
import math
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.distributed import get_rank
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer_callback import ExportableState

from finetune.core.errors import TrainingError
from finetune.loop.checkpoints import (
    Checkpoint,
    begin_checkpoint,
    disk_errors,
    publish_checkpoint,
    read_state,
    unfinished_folder,
    write_state,
)
from finetune.loop.ledger import (
    LAST_RESORT,
    BatchShape,
    Ledger,
    MicroBatchTooLarge,
    is_out_of_memory,
)
from finetune.loop.out_of_memory import OutOfMemory
from finetune.loop.skipped_steps import NoticeSkippedSteps

WEIGHTS, BEST = "weights.safetensors", "best.safetensors"
GATHER = StateDictOptions(full_state_dict=True, cpu_offload=True)
SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


class ResumableTrainer(Trainer):
    """Trainer with checkpoints of ``finetune/loop/checkpoints.py`` in ``args.output_dir``.

    One is written at every new best evaluation. ``ledger`` is stored with each;
    ``last_checkpoint`` is the folder of the newest. ``last_resort`` is what to try where memory
    ends with a single row.
    """

    last_resort = LAST_RESORT

    def __init__(self, *args: Any, ledger: Ledger | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ledger = ledger
        self.last_checkpoint: Path | None = None
        self._running_loss: torch.Tensor | None = None
        self._carried_loss: torch.Tensor | None = None
        self._doing = "before the first step"
        self.add_callback(NoticeSkippedSteps(self.accelerator))

    @property
    def root(self) -> Path:
        """The folder of the checkpoints."""
        return Path(self.args.output_dir)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train: the last step, or patience at its end."""
        return self.state.global_step >= self.state.max_steps or any(
            one.early_stopping_patience_counter >= one.early_stopping_patience
            for one in self.callback_handler.callbacks
            if isinstance(one, EarlyStoppingCallback)
        )

    def advice(self, smaller: BatchShape) -> str:
        """The recipe's keys for a smaller micro-batch."""
        return (
            f"training.batch_size={smaller.micro_batch} "
            f"training.gradient_accumulation_steps={smaller.accumulation}"
        )

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Train from a checkpoint, or from the beginning, to the end or an interruption.

        Raises OutOfMemory, which says where, when memory ends outside a micro-batch.
        """
        self.last_checkpoint = checkpoint.folder if checkpoint else None
        try:
            self.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
        except (RuntimeError, MemoryError) as fault:
            if not is_out_of_memory(fault):
                raise
            raise OutOfMemory(self._doing) from fault

    def save_checkpoint(self) -> None:
        """Publish a checkpoint of the last whole step; raises FolderError."""
        step, main = self.state.global_step, self.is_world_process_zero()
        self.store_flos()
        with disk_errors(self.root):
            folder = unfinished_folder(self.root, step)
            if main:
                begin_checkpoint(self.root, step)
            self.accelerator.wait_for_everyone()
            write_state(folder, f"process-{self.args.process_index}", self._process_state())
            weights, optimizer = self._weights(), self._optimizer_state()
            if main:
                self._write_shared(folder, weights, optimizer)
            self.accelerator.wait_for_everyone()
            if main:
                kept = self.ledger.as_dict() if self.ledger else {}
                publish_checkpoint(self.root, step, finished=self.finished, ledger=kept)
        self.last_checkpoint = self.root / f"checkpoint-{step}"
        self.accelerator.wait_for_everyone()

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As Trainer's; the first after a resume adds the loss summed before.

        Out of memory becomes MicroBatchTooLarge, which holds no tensors. Raises TrainingError
        where the loss is no number, which Trainer would leave out of its log.
        """
        loss = self._step_within_memory(*args, **kwargs)
        self._doing = f"in the optimizer's update of step {self.state.global_step + 1}"
        if not torch.isfinite(loss):
            raise self._diverged(self.state.global_step + 1, f"a loss of {loss.item()}")
        if self._carried_loss is not None:
            loss = loss + self._carried_loss.to(loss.device)
            self._carried_loss = None
        return loss

    def _step_within_memory(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        try:
            return super().training_step(*args, **kwargs)
        except (RuntimeError, MemoryError) as fault:
            if not is_out_of_memory(fault):
                raise
        raise MicroBatchTooLarge

    def compare_trainer_and_checkpoint_args(self, training_args: Any, trainer_state: Any) -> None:
        """Nothing: whoever offers the checkpoint has compared the recipes (transformers 4)."""

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """As Trainer's of transformers 5, which would compare a checkpoint's batch size here."""
        compares = logging.getLogger("transformers.trainer_utils")
        level = compares.level
        compares.setLevel(logging.ERROR)
        try:
            return super()._init_training_state(*args, **kwargs)
        finally:
            compares.setLevel(level)

    def _inner_training_loop(self, batch_size: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's, with this start's micro-batch: transformers 4 takes the checkpoint's."""
        self._train_batch_size = self.args.train_batch_size
        return super()._inner_training_loop(self._train_batch_size, *args, **kwargs)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        better = super()._determine_best_metric(metrics, trial)
        if better or self.finished:
            self.control.should_save = True
        return better

    def _maybe_log_save_evaluate(
        self, tr_loss: torch.Tensor, grad_norm: Any, *args: Any, **kwargs: Any
    ) -> None:
        self._running_loss = tr_loss
        self._doing = f"in the evaluation or the checkpoint of step {self.state.global_step}"
        norm = None if grad_norm is None else float(grad_norm)
        if norm is not None and not math.isfinite(norm) and not self.args.fp16:  # scaled there
            raise self._diverged(self.state.global_step, f"gradients with a norm of {norm}")
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _diverged(self, step: int, received: str) -> TrainingError:
        """The end of a training whose numbers are no numbers any more; nothing of it is saved."""
        rate = self.lr_scheduler.get_last_lr()[0] if self.lr_scheduler is not None else 0.0
        half = self.args.bf16 or self.args.fp16
        return TrainingError(
            f"the training diverged in step {step} of {self.state.max_steps}",
            received=f"{received}, at a learning rate of {rate:.2g}",
            next_step=f"training.learning_rate={self.args.learning_rate / 10:g}"
            + (", or training.precision=fp32" if half else "")
            + ("" if self.args.max_grad_norm else ", or training.max_grad_norm=1"),
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.save_checkpoint()

    def _write_shared(self, folder: Path, weights: Any, optimizer: Any) -> None:
        save_file(weights, folder / WEIGHTS)
        write_state(folder, "optimizer", optimizer)
        best = self.state.best_global_step
        if best is not None:
            before = folder if best == self.state.global_step else self.last_checkpoint
            _link(before / (WEIGHTS if before is folder else BEST), folder / BEST)
        for callback in self._stateful_callbacks():
            self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        for callback in self._callbacks_with_tensors():
            write_state(folder, type(callback).__name__, callback.training_state())
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def _weights(self) -> dict[str, torch.Tensor]:
        if self.is_fsdp_enabled:
            return full_weights(self.model_wrapped)
        model = self.accelerator.unwrap_model(self.model)
        return {
            name: value.detach().cpu().contiguous()
            for name, value in model.named_parameters()
            if value.requires_grad
        }

    def _optimizer_state(self) -> dict[str, Any]:
        scaler = getattr(self.accelerator, "scaler", None)
        return {
            "optimizer": full_optimizer(self.model_wrapped, self.optimizer)
            if self.is_fsdp_enabled
            else self.optimizer.state_dict(),
            "scheduler": self.lr_scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def _process_state(self) -> dict[str, Any]:
        """Random numbers and running loss of this process at the end of the last step."""
        loss = torch.zeros(()) if self._running_loss is None else self._running_loss
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002  libraries still draw from it
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if self.args.device.type == "cuda" else None,
            "running_loss": loss.detach().clone(),
            "logged_step": self._globalstep_last_logged,
        }

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """What ``_process_state`` kept; Trainer calls this right before the first step."""
        if checkpoint is None:
            return
        folder, name = Path(checkpoint), f"process-{self.args.process_index}"
        if not (folder / f"{name}.json").is_file():
            return  # more processes than wrote it: the new ones keep their own seed
        kept = read_state(folder, name)
        random.setstate(kept["python"])
        np.random.set_state(kept["numpy"])  # noqa: NPY002
        torch.set_rng_state(kept["torch"])
        if kept["cuda"] is not None and self.args.device.type == "cuda":
            torch.cuda.set_rng_state(kept["cuda"])
        self._running_loss = self._carried_loss = kept["running_loss"]
        self._globalstep_last_logged = kept["logged_step"]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        path = Path(resume_from_checkpoint) / WEIGHTS
        if self.is_fsdp_enabled:
            load_full_weights(model or self.model_wrapped, path)
        else:
            load_weights(self.accelerator.unwrap_model(model or self.model), path)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The states as they were, but rates and decays of the recipe, which may have changed."""
        if checkpoint is None:
            return
        kept = read_state(Path(checkpoint), "optimizer")
        rates = list(self.lr_scheduler.base_lrs)
        decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        if self.is_fsdp_enabled:
            load_full_optimizer(self.model_wrapped, self.optimizer, kept["optimizer"])
        else:
            self.optimizer.load_state_dict(kept["optimizer"])
        self.lr_scheduler.load_state_dict(kept["scheduler"])
        _set_rates(self.optimizer, self.lr_scheduler, rates, decays)
        if kept["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(kept["scaler"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Nothing: it is loaded with the optimizer."""

    def _load_callback_state(self) -> None:
        """What the callbacks kept; how often to log, evaluate and save is this start's."""
        for name in ("logging_steps", "eval_steps", "save_steps"):
            setattr(self.state, name, getattr(self.args, name))
        for callback in self._stateful_callbacks():
            kept = self.state.stateful_callbacks.get(type(callback).__name__, {})
            for name, value in kept.get("attributes", {}).items():
                setattr(callback, name, value)
        for callback in self._callbacks_with_tensors():
            kept = read_state(self.last_checkpoint, type(callback).__name__)
            callback.load_training_state(kept)

    def _stateful_callbacks(self) -> list[Any]:
        return [one for one in self.callback_handler.callbacks if isinstance(one, ExportableState)]

    def _callbacks_with_tensors(self) -> list[Any]:
        return [one for one in self.callback_handler.callbacks if hasattr(one, "training_state")]


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Put stored weights into a model's parameters of the same names, bit for bit."""
    places = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    with torch.no_grad():
        for name, value in load_file(path).items():
            places[name].copy_(value)


def _set_rates(optimizer: Any, scheduler: Any, rates: list[float], decays: list[float]) -> None:
    """The recipe's rates and decays in place of those that a checkpoint brought.

    ``scheduler`` is a LambdaLR, as all of Trainer's; unchanged, its rates are the same bits.
    """
    steps = scheduler.last_epoch
    scheduler.base_lrs = rates
    for group, rate, decay, scale in zip(
        optimizer.param_groups, rates, decays, scheduler.lr_lambdas, strict=True
    ):
        group |= {"initial_lr": rate, "weight_decay": decay, "lr": rate * scale(steps)}
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]


def _link(source: Path, target: Path) -> None:
    """A second name for the same file; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def full_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every weight by its own name; empty in all processes but the first."""
    state = get_model_state_dict(model, options=GATHER)
    return {name: value.contiguous() for name, value in state.items()}


def full_optimizer(model: torch.nn.Module, optimizer: Any) -> dict[str, Any]:
    """The optimizer's state by the names of the weights; empty in all but the first."""
    return get_optimizer_state_dict(model, _bare(optimizer), options=GATHER)


def load_full_weights(model: torch.nn.Module, path: Path) -> None:
    """Spread stored weights over the processes."""
    state = load_file(path) if get_rank() == 0 else {}
    set_model_state_dict(model, state, options=SPREAD)


def load_full_optimizer(model: torch.nn.Module, optimizer: Any, state: dict[str, Any]) -> None:
    """Spread a stored optimizer state over the processes."""
    whole = state if get_rank() == 0 else {}
    set_optimizer_state_dict(model, _bare(optimizer), whole, options=SPREAD)


def _bare(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer without accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)
