"""The story of an export: a run folder in, a checked artifact folder out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.artifact.card import write_card
from export.artifact.folder import (
    SCRATCH,
    Artifact,
    building_folder,
    check_target,
    failed_target,
    open_artifact,
    publish_artifact,
    write_draft,
    write_manifest,
)
from export.artifact.origin import describe_origin
from export.checks.accuracy import Ladder, Thresholds, choose_rows, unpadded_logits
from export.graph.files import model_bytes
from export.precisions import (
    asked_files,
    check_precisions,
    keep_files,
    measure_all_stability,
    search_files,
)
from export.quantization.workshop import Workshop, calibration_feeds
from export.runtime.bundle import write_predict
from finetune.core.errors import ModelError, RecipeError
from finetune.core.provenance import collect_provenance
from finetune.recipes.files import apply_overrides, check_recipe
from finetune.recipes.speech import SpeechExportSection, SpeechRecipe
from finetune.recipes.text import ExportSection, FinetuneRecipe
from finetune.run_folder import Run, open_run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Artifact", "export_run", "open_artifact"]

FP32_FILE = "onnx/model.onnx"  # the name transformers.js and Optimum look for
FUSED_FILE = f"{SCRATCH}/model_fused.onnx"  # int8's parent, checked but not shipped


@dataclass(frozen=True)
class Encoder:
    """What later stages must know of a model after its weights have been let go."""

    heads: int
    hidden_size: int
    head_modules: tuple[str, ...]


def export_run(
    run_folder: Path | str,
    target: Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None,
) -> Artifact:
    """Merge, export, quantise and check a run; publish ``target`` (artifacts/<run name>).

    ``overrides`` are ``key=value`` of the recipe's export section. Every stage is compared with
    an earlier one on validation rows; when a limit is crossed, everything made is published as
    ``<target>.failed`` with status "failed", an artifact already at ``target`` stays untouched,
    and GateError is raised. Raises KotuneError for wrong input; then nothing is written.
    """
    run = open_run(run_folder)
    if run.is_speech:
        from export.tasks.speech import export_speech_run

        return export_speech_run(run, target, overrides=overrides, report=report)
    settings = export_settings(run.recipe, overrides)
    target = Path(target) if target is not None else Path("artifacts") / run.name
    check_target(target)
    check_target(failed_target(target))
    check_precisions(() if settings.search else settings.precisions, settings.device)
    thresholds = Thresholds(
        settings.max_logit_difference,
        settings.max_accuracy_drop,
        settings.flip_margin,
        settings.max_flipped_above_margin,
    )
    ladder = Ladder(choose_rows(run, settings.check_rows), thresholds, report)
    with building_folder(target) as folder:
        _build(run, settings, ladder, folder)
        published = failed_target(target) if ladder.failures else target
        publish_artifact(folder, published)
    ladder.gate(kept=published)
    return open_artifact(published, verify=False)


def export_settings(
    recipe: FinetuneRecipe | SpeechRecipe, overrides: Sequence[str]
) -> ExportSection | SpeechExportSection:
    """The recipe's export section with ``key=value`` or ``export.key=value`` applied."""
    named = []
    for override in overrides:
        key, _, _ = override.partition("=")
        if "." in key and not key.startswith("export."):
            raise RecipeError(
                "only the export section can be changed when exporting",
                received=override,
                allowed=", ".join(f"export.{name}" for name in type(recipe.export).model_fields),
            )
        named.append(override if "." in key else f"export.{override}")
    content = apply_overrides(recipe.model_dump(mode="json"), named)
    return check_recipe(type(recipe), content, "export").export


def _build(run: Run, settings: ExportSection, ladder: Ladder, folder: Path) -> None:
    """Fill ``folder`` stage by stage; the models of one stage are freed before the next."""
    tokenizer = _save_tokenizer(run, folder)
    _check_reloaded(run, tokenizer, ladder)
    gc.collect()  # adapters hold their model in cycles, and two large ones need not fit
    encoder, facts = _export_merged(run, tokenizer, settings, ladder, folder)
    gc.collect()
    facts |= describe_origin(run, folder, settings.license)
    manifest = _describe(run, settings, tokenizer, facts)
    files = manifest["files"]

    files["fp32"] = {"path": FP32_FILE}
    _check_runtime(folder, manifest, ladder, "fp32", ("onnx-fp32", "float", "merged"))
    fused, parent = _fuse(folder, manifest, ladder, encoder)

    workshop = Workshop(
        folder=folder,
        manifest=manifest,
        **asdict(encoder),
        plain=folder / FP32_FILE,
        fused=fused,
        make_feeds=partial(calibration_feeds, run, settings.calibration_rows, folder, manifest),
        smooth_alpha=settings.smooth_alpha,
        int8_embeddings=settings.int8_embeddings,
        device=settings.device,
    )

    def check(precision: str, step: tuple[str, Any, str]) -> None:
        _check_runtime(folder, manifest, ladder, precision, step, provider=settings.device)

    if settings.search:
        made = search_files(workshop, settings, ladder)
    else:
        made = asked_files(workshop, settings.precisions, settings.calibration)
    keep_files(workshop, made, check, parent)
    measure_all_stability(workshop, settings, ladder, run.recipe.seed)
    files.pop("fused", None)
    for entry in files.values():
        entry["bytes"] = model_bytes(folder / entry["path"])
    manifest["status"] = "failed" if ladder.failures else "passed"
    manifest["ladder"] = [step.as_dict() for step in ladder.steps]
    write_predict(folder)
    write_card(folder, manifest)
    write_manifest(folder, manifest)


def _save_tokenizer(run: Run, folder: Path) -> PreTrainedTokenizerBase:
    """Copy the run's tokenizer; clients of the artifact truncate where training did."""
    from finetune.models.loading import load_tokenizer

    tokenizer = load_tokenizer(run.folder / "model")
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise ModelError(
            "the artifact needs a fast tokenizer with a padding token",
            received=type(tokenizer).__name__,
        )
    tokenizer.model_max_length = run.max_length
    tokenizer.save_pretrained(folder)
    return tokenizer


def _check_reloaded(run: Run, tokenizer: PreTrainedTokenizerBase, ladder: Ladder) -> None:
    """Training's stored logits, then the model read back from disk, in fp32."""
    from finetune.models.loading import load_trained, predict_logits

    ladder.climb("training", "reference", ladder.rows.stored_logits)
    exact = run.info.get("evaluation_precision", "fp32") == "fp32"
    model = load_trained(run)
    logits = predict_logits(model, tokenizer, ladder.rows.texts, max_length=run.max_length)
    ladder.climb("reloaded", "float" if exact else "reported", logits, "training")


def _export_merged(
    run: Run,
    tokenizer: PreTrainedTokenizerBase,
    settings: ExportSection,
    ladder: Ladder,
    folder: Path,
) -> tuple[Encoder, dict[str, Any]]:
    """Merge, check, write fp32 ONNX and config.json; PyTorch is done after this."""
    from export.graph.merge_choice import merge_best
    from export.graph.to_onnx import export_onnx
    from finetune.models.loading import predict_logits

    def classify(model: PreTrainedModel) -> np.ndarray:
        return predict_logits(model, tokenizer, ladder.rows.texts, max_length=run.max_length)

    merged = merge_best(run, settings.merge_base, classify, ladder.rows.labels)
    kind = "quantized" if merged.base == "original" else "float"  # NF4's errors are gone
    ladder.climb("merged", kind, merged.logits, "reloaded")
    model = merged.model
    model.config.save_pretrained(folder)
    graph = export_onnx(model, folder / FP32_FILE, opset=settings.opset)
    facts = {"opset": graph.opset, "inputs": list(graph.inputs), "outputs": list(graph.outputs)}
    if merged.base is not None:
        facts |= {"merge_base": merged.base, "merges": merged.measured}
    return _describe_encoder(model), facts


def _describe_encoder(model: PreTrainedModel) -> Encoder:
    children = {name for name, _ in model.named_children()}
    config = model.config
    return Encoder(
        heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        head_modules=tuple(sorted(children - {model.base_model_prefix})),
    )


def _fuse(
    folder: Path, manifest: dict[str, Any], ladder: Ladder, encoder: Encoder
) -> tuple[Path | None, str]:
    """The fused graph, None where the patterns do not match; the step of the last float graph."""
    from export.graph.fusion import fuse_graph

    fused = folder / FUSED_FILE
    count = fuse_graph(
        folder / FP32_FILE, fused, heads=encoder.heads, hidden_size=encoder.hidden_size
    )
    manifest["fused_attentions"] = count
    if count == 0:
        ladder.report("attention could not be fused; int8 is made from the plain graph")
        return None, "onnx-fp32"
    manifest["files"]["fused"] = {"path": FUSED_FILE}
    _check_runtime(folder, manifest, ladder, "fused", ("onnx-fused", "float", "onnx-fp32"))
    return fused, "onnx-fused"


def _check_runtime(
    folder: Path,
    manifest: dict[str, Any],
    ladder: Ladder,
    precision: str,
    step: tuple[str, Any, str],
    provider: str = "cpu",
) -> None:
    """Climb one step with the shipped runtime; fp32 also on single rows, without padding."""
    from export.runtime.classifier import OnnxClassifier

    write_draft(folder, manifest)
    classifier = OnnxClassifier(folder, precision, provider=provider, verify=False)
    name, kind, before = step
    texts = ladder.rows.texts
    ladder.climb(name, kind, classifier.logits(texts), before)
    if precision == "fp32":
        alone: np.ndarray = unpadded_logits(classifier.logits, texts)
        ladder.climb(f"{name}-unpadded", kind, alone, before)


def _describe(
    run: Run, settings: ExportSection, tokenizer: PreTrainedTokenizerBase, facts: dict[str, Any]
) -> dict[str, Any]:
    """The manifest so far: everything that is known before the graphs are checked."""
    return {
        "name": run.name,
        "status": "building",
        "method": run.method,
        "base": run.base,
        "labels": list(run.labels),
        "max_length": run.max_length,
        "padding_side": "right",
        "pad_token_id": tokenizer.pad_token_id,
        **facts,
        "files": {},
        "settings": settings.model_dump(mode="json"),
        "ladder": [],
        "provenance": collect_provenance(run.recipe.seed),
    }
