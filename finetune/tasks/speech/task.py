"""One readable speech run: recordings and a recipe in, a run folder out.

Killed or interrupted, it goes on from its last checkpoint; see train_loop.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import TrainerCallback, TrainerState, set_seed

from finetune import run_folder
from finetune.adapters.attach import count_parameters
from finetune.core.files import publish_folder, read_json, write_json
from finetune.core.provenance import collect_provenance, git_state
from finetune.data.audio import encode_flac
from finetune.data.recordings import Waves
from finetune.hardware.precision import bound_primitive_caches, exact_fp32
from finetune.loop.checkpoints import Checkpoint, disk_errors
from finetune.loop.drive import Watch, drive_to_end
from finetune.loop.ledger import Ledger
from finetune.loop.resumable import BEST, load_weights
from finetune.loop.work_folder import (
    announce_publication,
    clear_work,
    finish_publication,
    open_work,
)
from finetune.metrics.word_errors import count_errors, speech_metrics
from finetune.models.source import BaseModel
from finetune.models.trained_weights import save_model
from finetune.recipes.kinds import SPEECH
from finetune.recipes.speech import SpeechRecipe
from finetune.tasks.speech.batches import SpeechBatches
from finetune.tasks.speech.ctc import SpeechSettings
from finetune.tasks.speech.job import Ready, Report, SpeechJob, prepare_job, prepare_model
from finetune.tasks.speech.model import TorchFrames
from finetune.tasks.speech.trainer import CtcTrainer, build_speech_trainer, transcribe_stored
from finetune.tasks.text.trainer import training_history

EVALUATED = ("validation", "test")
METRICS = "kotune.metrics/1"


@exact_fp32()
def finetune_speech(
    recipe: SpeechRecipe, *, overwrite: bool = False, report: Report = print
) -> Path:
    """Train what the recipe says and publish the run folder, whole or not at all.

    An unfinished run of the same recipe goes on where it was. Raises RecipeError, DataError,
    ModelError or FolderError before anything heavy begins, KeyboardInterrupt once a training
    that was asked to stop has saved itself.
    """
    target = Path(recipe.folder)
    git_state()
    bound_primitive_caches()
    if finish_publication(target, recipe, report):
        return target
    run_folder.check_target(target, overwrite=overwrite)
    job = prepare_job(recipe)
    _report_data(job, report)
    work = open_work(target, job, report)
    set_seed(recipe.seed)
    ready = prepare_model(job, work, report)
    before = _measure_before(job, ready, work, report)
    checkpoint = _train(job, ready, work, report)
    load_weights(ready.model, checkpoint.folder / BEST)
    with disk_errors(work / "steps"), publish_folder(target, workplace=work) as folder:
        shutil.copytree(work / "model", folder / "model")
        shutil.copytree(work / "tensorboard", folder / "tensorboard")
        figures = _write_results(job, ready, checkpoint, before, folder, report)
        run_folder.seal_run(folder, recipe, _describe_run(job, ready, figures, folder))
        announce_publication(work, folder)
    clear_work(target)
    report(f"run folder {target}")
    return target


def _measure_before(job: SpeechJob, ready: Ready, work: Path, report: Report) -> dict[str, Any]:
    """What a pretrained model hears before training, measured once however often it starts."""
    if job.base is None or ready.new_head:
        return {}
    path = work / "before.json"
    if not path.is_file():
        metrics = _measure_splits(job, ready, None, report, "before training, ")
        write_json(path, METRICS, {"before": metrics})
    return {"before": read_json(path, METRICS)["before"]}


def _train(job: SpeechJob, ready: Ready, work: Path, report: Report) -> Checkpoint:
    """Train to the end, in this start or an earlier one; the last checkpoint."""
    recipe, batches = job.recipe, _training_batches(job, ready)

    def build(ledger: Ledger, callbacks: Sequence[TrainerCallback]) -> CtcTrainer:
        return build_speech_trainer(
            model=ready.model,
            batches=batches,
            validation=ready.waves["validation"],
            references=job.corpus.validation["text"].tolist(),
            settings=ready.settings,
            training=recipe.training,
            device=job.device,
            precision=job.precision,
            seed=recipe.seed,
            checkpoints=work / "steps",
            ledger=ledger,
            callbacks=callbacks,
        )

    report(f"{len(batches):,} steps of at most {recipe.training.batch_seconds:g} s of audio")
    fresh = Ledger(micro_batch=1, accumulation=recipe.training.gradient_accumulation_steps)
    watch = Watch("wer", recipe.training.save_steps, job.device)
    return drive_to_end(build, fresh, watch, work, report)


def _write_results(
    job: SpeechJob,
    ready: Ready,
    checkpoint: Checkpoint,
    before: dict[str, Any],
    folder: Path,
    report: Report,
) -> dict[str, Any]:
    """Model, transcripts, metrics and provenance; returns what run.json says of the training."""
    state = TrainerState.load_from_json(str(checkpoint.folder / "trainer_state.json"))
    ledger = Ledger(**checkpoint.ledger)
    write_json(folder / "data.json", "kotune.data/1", job.corpus.summary)
    _save_model(ready.model, job, folder)
    metrics = before | _measure_splits(job, ready, folder, report, "")
    metrics["history"] = training_history(state)
    metrics["best"] = {"step": state.best_global_step, "wer": state.best_metric}
    write_json(folder / "metrics.json", METRICS, metrics)
    provenance = {**collect_provenance(job.recipe.seed), "training": {"starts": ledger.starts}}
    write_json(folder / "provenance.json", "kotune.provenance/1", provenance)
    count = count_parameters(ready.model)
    return {
        "training_time_s": ledger.training_time_s,
        "steps": state.global_step,
        "step_times_s": ledger.step_times_s,
        "peak_training_memory_bytes": ledger.peak_memory_bytes,
        "parameters": {"total": count.total, "trainable": count.trainable},
    }


def _training_batches(job: SpeechJob, ready: Ready) -> SpeechBatches:
    recipe, train = job.recipe, job.corpus.train
    return SpeechBatches(
        ready.waves["train"],
        train["seconds"].tolist(),
        train["text"].tolist(),
        lambda text: ready.tokenizer(text).input_ids,
        augment=recipe.augment,
        masked=ready.settings.masked,
        batch_seconds=recipe.training.batch_seconds,
        epochs=recipe.training.epochs,
        steps=recipe.training.max_steps,
        seed=recipe.seed,
        least_samples=_least_samples(ready.settings, recipe.augment.mask_time_length),
        normalized=ready.settings.normalize,
    )


def _least_samples(settings: SpeechSettings, mask_time_length: int) -> int:
    """SpecAugment refuses sequences shorter than its mask."""
    return settings.receptive_field + (mask_time_length + 1) * settings.hop


def _save_model(model: torch.nn.Module, job: SpeechJob, folder: Path) -> None:
    """Adapter or model, safetensors, beside the processor and config that stand there."""
    target = folder / "model"
    for config in getattr(model, "peft_config", {}).values():
        config.base_model_name_or_path = job.base.source
    save_model(model, target)
    (target / "README.md").unlink(missing_ok=True)  # PEFT's empty card


def _measure_splits(
    job: SpeechJob, ready: Ready, folder: Path | None, report: Report, when: str
) -> dict[str, Any]:
    """WER of validation and test in fp32; with a folder, transcripts and recordings are stored."""
    frames, metrics = TorchFrames(ready.model, job.device), {}
    for name in EVALUATED:
        frame = job.corpus.splits[name]
        transcripts = transcribe_stored(ready.waves[name], ready.settings, frames)
        result = speech_metrics(frame["text"].tolist(), transcripts, seed=job.recipe.seed)
        metrics[name] = result.as_dict()
        report(f"{when}{name}: {result.describe()}")
        if folder is not None:
            _write_split(folder, name, frame, ready.waves[name], transcripts)
    if folder is not None:
        listed = job.corpus.train.drop(columns="audio")
        run_folder.write_rows(folder, "train", listed)
    return metrics


def _write_split(
    folder: Path, name: str, frame: pd.DataFrame, waves: Waves, transcripts: list[str]
) -> None:
    """data/<split>.parquet with the recordings as FLAC, predictions/<split>.parquet."""
    audio = [encode_flac(waves[place], waves.rate_hz) for place in range(len(waves))]
    run_folder.write_rows(folder, name, frame.assign(audio=audio))
    counts = count_errors(frame["text"].tolist(), transcripts)
    table = pd.DataFrame(
        {
            "row": frame["row"].to_numpy(),
            "reference": frame["text"].to_numpy(),
            "transcript": transcripts,
            "words": counts.words,
            "word_errors": counts.word_errors,
            "characters": counts.characters,
            "character_errors": counts.character_errors,
        }
    )
    (folder / "predictions").mkdir(exist_ok=True)
    table.to_parquet(folder / "predictions" / f"{name}.parquet", index=False)


def _describe_run(
    job: SpeechJob, ready: Ready, figures: dict[str, Any], folder: Path
) -> dict[str, Any]:
    recipe = job.recipe
    base = job.base or BaseModel("from scratch", "", random_weights=True, seed=recipe.seed)
    weights = list((folder / "model").glob("*.safetensors"))
    return {
        "name": recipe.name,
        "task": SPEECH,
        "method": recipe.adapter.method,
        "base": base.as_dict(),
        "labels": list(ready.settings.labels),
        "max_length": None,
        "sampling_rate_hz": ready.settings.rate_hz,
        "chunk_s": ready.settings.chunk_s,
        "stride_s": ready.settings.stride_s,
        "new_head": ready.new_head,
        "device": job.device,
        "precision": job.precision,
        "evaluation_precision": "fp32",
        "threads": torch.get_num_threads(),
        "data_fingerprint": job.corpus.summary["fingerprint"],
        "weights_bytes": sum(path.stat().st_size for path in weights),
        **figures,
    }


def _report_data(job: SpeechJob, report: Report) -> None:
    summary = job.corpus.summary
    rows = ", ".join(
        f"{name} {part['rows']:,} ({part['seconds'] / 60:.1f} min)"
        for name, part in summary["splits"].items()
    )
    report(f"data {summary['origin']}: {rows}, fingerprint {summary['fingerprint'][:12]}")
    for note in summary.get("notes", ()):
        report(f"  {note}")
    for name, dropped in summary["dropped"].items():
        if any(dropped[key] for key in ("no_text", "too_long", "unreadable")):
            first = "; ".join(f"row {one['row']}: {one['why']}" for one in dropped["first"])
            report(
                f"  dropped from {name}: {dropped['no_text']} without text, {dropped['too_long']} "
                f"too long, {dropped['unreadable']} unreadable ({first or '–'})"
            )
