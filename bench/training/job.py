"""What a training worker runs, on PyTorch: the product's own data, model, Trainer and plan."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed

from bench.instruments.timing import round_sample
from finetune.adapters.attach import count_parameters
from finetune.loop.ledger import Ledger
from finetune.recipes.text import FinetuneRecipe
from finetune.run_folder import logits_of, open_run, read_predictions
from finetune.tasks.text.job import TextJob, build_model, prepare_job
from finetune.tasks.text.trainer import build_trainer, tokenize_rows
from finetune.training import finetune

ENDLESS = 1_000_000  # optimizer steps: the driver ends the process


@dataclass(frozen=True)
class Prepared:
    """A job with its tokenised splits; ``facts`` go to the report."""

    job: TextJob
    splits: dict[str, Dataset]
    facts: dict[str, Any]


def prepare(content: dict[str, Any]) -> Prepared:
    """Find, read and tokenise what the recipe names."""
    recipe = FinetuneRecipe.model_validate(content)
    job = prepare_job(recipe)
    frames = {"train": job.corpus.train, "validation": job.corpus.validation}
    splits = {
        name: tokenize_rows(
            frame,
            job.tokenizer,
            recipe.model.max_length,
            recipe.training.padding,
            preparation=job.preparation,
        )
        for name, frame in frames.items()
    }
    lengths = splits["train"]["length"]
    facts = {
        "rows": len(lengths),
        "longest_tokens": max(lengths),
        "mean_tokens": round_sample(sum(lengths) / len(lengths)),
        "device": job.device,
        "precision": job.precision,
        "fingerprint": job.corpus.fingerprint,
    }
    return Prepared(job, splits, facts)


def build(prepared: Prepared, scratch: Path) -> tuple[Any, dict[str, Any]]:
    """Model and Trainer as ``finetune`` makes them, never to stop or evaluate by themselves."""
    job = prepared.job
    set_seed(job.recipe.seed)
    model, _ = build_model(job, scratch)
    training = job.recipe.training.model_copy(
        update={"max_steps": ENDLESS, "eval_steps": ENDLESS, "early_stopping_patience": None}
    )
    trainer = build_trainer(
        model=model,
        tokenizer=job.tokenizer,
        max_length=job.recipe.model.max_length,
        train_rows=prepared.splits["train"],
        validation_rows=prepared.splits["validation"],
        training=training,
        device=job.device,
        precision=job.precision,
        seed=job.recipe.seed,
        checkpoints=scratch / "steps",
        ledger=Ledger(training.batch_size, training.gradient_accumulation_steps),
        callbacks=[],
        loss=job.loss,
    )
    parameters = count_parameters(model)
    return trainer, {"parameters": parameters.total, "trainable": parameters.trainable}


def plan(content: dict[str, Any]) -> dict[str, Any]:
    """The planner's figures for the recipe, and the seconds it took to find them."""
    from finetune.planning.planning import plan_memory

    began = time.perf_counter()
    need = plan_memory(FinetuneRecipe.model_validate(content))
    return {**need.as_dict(), "plan_s": round_sample(time.perf_counter() - began)}


def finetune_whole(content: dict[str, Any]) -> dict[str, Any]:
    """A run from begin to end: its steps, and which rows of a split it got right, 0 or 1 each."""
    recipe = FinetuneRecipe.model_validate(content)
    run = open_run(finetune(recipe, overwrite=True, report=lambda line: None))
    right = {}
    for split in ("validation", "test"):
        stored = read_predictions(run, split)
        hits = logits_of(stored).argmax(axis=1) == stored["label"].to_numpy()
        right[split] = "".join("1" if hit else "0" for hit in hits)
    return {"steps": run.info.steps, "right": right}
