"""Speech recognition as the story of a fine-tuning asks for it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import TrainerCallback, set_seed

from finetune import run_folder
from finetune.checks.signs import Sign
from finetune.checks.stored import compare_logits
from finetune.core.files import read_json, write_json
from finetune.core.processes import is_main_process, is_sharded, wait_for_processes
from finetune.data.audio import encode_flac, to_float
from finetune.data.recordings import Waves
from finetune.data.summary import DataSummary, report_recordings
from finetune.hardware.frozen_base import hold_frozen
from finetune.loop.checkpoints import disk_errors
from finetune.loop.ledger import BatchShape, Ledger
from finetune.loop.progress import Watch
from finetune.metrics.word_errors import count_errors, speech_metrics
from finetune.models.trained_weights import save_model
from finetune.recipes.speech import SpeechRecipe
from finetune.run_records import METRICS_SCHEMA, RunMetrics, SplitMetrics
from finetune.tasks.speech.ctc import run_many
from finetune.tasks.speech.job import SpeechBuilt, SpeechJob, build_model, prepare_job
from finetune.tasks.speech.model import TorchFrames, load_trained_speech, run_settings
from finetune.tasks.speech.trainer import CtcTrainer, build_speech_trainer, transcribe_stored
from finetune.tasks.task import Figures, Measure, Report, RunTask, build_tried

EVALUATED = ("validation", "test")
CHECKED = 8  # validation recordings that a stored run is compared on
Sample = tuple[list[np.ndarray], list[np.ndarray]]  # waves, logits of each


class SpeechTask(RunTask):
    """Recordings into text: wav2vec2 with CTC."""

    measures = MappingProxyType(
        {"wer": Measure("WER", ".2%", "positive"), "cer": Measure("CER", ".2%", "positive")}
    )

    def prepare(self, recipe: SpeechRecipe) -> SpeechJob:
        """Base model, device and recordings."""
        return prepare_job(recipe)

    def report_data(self, job: SpeechJob, report: Report) -> None:
        """Recordings and minutes of each split, and what was dropped."""
        report_recordings(job.corpus.summary, report)

    def build(self, job: SpeechJob, work: Path, report: Report) -> SpeechBuilt:
        """Model, processor and batches; a pretrained model is measured before it is trained."""
        return build_tried(
            job,
            lambda changed, recipe: replace(
                self._build(replace(changed, recipe=recipe), work, report), job=changed
            ),
            lambda built: (built.batches[0], ctc_loss),
            report,
        )

    def _build(self, job: SpeechJob, work: Path, report: Report) -> SpeechBuilt:
        set_seed(job.recipe.seed)
        built = build_model(job, work, report)
        training = job.recipe.training
        steps = math.ceil(len(built.batches) / training.gradient_accumulation_steps)
        report(
            f"{steps:,} steps of {training.gradient_accumulation_steps} × at most "
            f"{training.batch_seconds:g} s of audio"
        )
        built = replace(built, before=_measure_before(job, built, work, report))
        if is_sharded():
            return built
        with disk_errors(work / "steps"):
            held = hold_frozen(built.model, job.recipe, job.precision, work)
        return replace(built, originals=held)

    def sample_answers(self, job: SpeechJob, built: SpeechBuilt) -> Sample:
        """A few validation recordings and their logits."""
        waves = built.waves["validation"]
        few = [to_float(waves[place]) for place in range(min(len(waves), CHECKED))]
        frames = TorchFrames(built.model, job.device)
        return few, run_many(few, built.settings, frames)

    def check_stored(self, job: SpeechJob, folder: Path, sample: Sample) -> None:
        """Load the run afresh and compare its logits of the sample; raises GateError."""
        run = run_folder.open_run(folder, verify=False)
        waves, measured = sample
        frames = TorchFrames(load_trained_speech(run), job.device)
        again = run_many(waves, run_settings(run), frames)
        compare_logits(np.concatenate(measured), np.concatenate(again))

    def answer_signs(self, job: SpeechJob, metrics: RunMetrics) -> list[Sign]:
        """Nothing heard: as many errors as words, or more."""
        return [
            Sign(
                "nothing-heard",
                f"{split}: a word error rate of {metrics.split(split)['wer']:.2%} is no better "
                "than transcribing nothing",
                {"split": split, "wer": metrics.split(split)["wer"]},
            )
            for split in EVALUATED
            if metrics.split(split)["wer"] >= 1
        ]

    def watch(self, job: SpeechJob, built: SpeechBuilt) -> Watch:
        """The word error rate; speed in seconds of recordings."""
        training = job.recipe.training
        whole = training.gradient_accumulation_steps
        return Watch(
            "wer",
            False,
            training.save_steps,
            job.device,
            unit="s of audio",
            seen=lambda steps: built.batches.seconds_before(steps * whole),
        )

    def batch_shape(self, job: SpeechJob, built: SpeechBuilt) -> BatchShape:
        """Whole batches."""
        return built.batches.shape(job.recipe.training.gradient_accumulation_steps)

    def make_trainer(
        self,
        job: SpeechJob,
        built: SpeechBuilt,
        ledger: Ledger,
        callbacks: Sequence[TrainerCallback],
        checkpoints: Path,
    ) -> CtcTrainer:
        """Batches in their order, word error rate of the validation recordings."""
        return build_speech_trainer(
            model=built.model,
            batches=built.batches,
            validation=built.waves["validation"],
            references=job.corpus.validation["text"].tolist(),
            settings=built.settings,
            training=job.recipe.training,
            device=job.device,
            precision=job.precision,
            seed=job.recipe.seed,
            checkpoints=checkpoints,
            ledger=ledger,
            callbacks=callbacks,
        )

    def data_summary(self, job: SpeechJob, built: SpeechBuilt) -> DataSummary:
        """What was read."""
        return job.corpus.summary

    def save_model(self, job: SpeechJob, built: SpeechBuilt, folder: Path) -> None:
        """Adapter or model, safetensors, beside the processor and config made before training."""
        shutil.copytree(built.folder, folder)
        for config in getattr(built.model, "peft_config", {}).values():
            config.base_model_name_or_path = job.base.source
        save_model(built.model, folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card

    def evaluate(
        self, job: SpeechJob, built: SpeechBuilt, folder: Path, report: Report
    ) -> RunMetrics:
        """WER and CER of both splits, beside those before training."""
        return RunMetrics(**built.before, **_measure_splits(job, built, folder, report, ""))

    def describe(self, job: SpeechJob, built: SpeechBuilt) -> dict[str, Any]:
        """Characters, and how long files are cut."""
        return {
            "labels": list(built.settings.labels),
            "max_length": None,
            "sampling_rate_hz": built.settings.rate_hz,
            "chunk_s": built.settings.chunk_s,
            "stride_s": built.settings.stride_s,
            "new_head": built.new_head,
        }

    def figures(self, metrics: RunMetrics) -> Figures:
        """Word and character error rate of validation and test."""
        return {
            split: {name: metrics.split(split)[name] for name in ("wer", "cer")}
            for split in EVALUATED
        }


def ctc_loss(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """The model's own loss of a batch of recordings and labels."""
    return model(**{name: value for name, value in batch.items() if name != "weight"}).loss


def _measure_before(
    job: SpeechJob, built: SpeechBuilt, work: Path, report: Report
) -> dict[str, Any]:
    """What a pretrained model hears before training, measured once however often it starts."""
    if job.base is None or built.new_head:
        return {}
    path = work / "before.json"
    if is_main_process() and not path.is_file():
        metrics = _measure_splits(job, built, None, report, "before training, ")
        write_json(
            path,
            METRICS_SCHEMA,
            {"before": {name: one.as_dict() for name, one in metrics.items()}},
        )
    wait_for_processes()
    return {"before": read_json(path, METRICS_SCHEMA)["before"]}


def _measure_splits(
    job: SpeechJob, built: SpeechBuilt, folder: Path | None, report: Report, when: str
) -> dict[str, SplitMetrics]:
    """WER of validation and test in fp32; with a folder, transcripts and recordings are stored."""
    frames, metrics = TorchFrames(built.model, job.device), {}
    for name in EVALUATED:
        frame = job.corpus.splits[name]
        transcripts = transcribe_stored(built.waves[name], built.settings, frames)
        result = speech_metrics(frame["text"].tolist(), transcripts, seed=job.recipe.seed)
        metrics[name] = SplitMetrics(**result.as_dict())
        report(f"{when}{name}: {result.describe()}")
        if folder is not None:
            _write_split(folder, name, frame, built.waves[name], transcripts)
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
