"""The Hub metadata of an artifact's card, made and read back by huggingface_hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from export.artifact.manifest import ArtifactManifest
from finetune.core.errors import FolderError
from finetune.run_records import BaseRecord

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

HUB_NSMC = "e9t/nsmc"  # the corpus' id as a hub dataset
UNKNOWN_LICENSE = "unknown"  # the hub's own word for it
REQUIRED = ("license", "pipeline_tag", "library_name", "tags", "eval_results")


@dataclass(frozen=True)
class Figure:
    """A measured figure in the hub's terms: its metric, a title for the reader, the value."""

    metric: str
    title: str
    value: float


Figures = Callable[[dict[str, Any]], Sequence[Figure]]


def card_metadata(
    manifest: ArtifactManifest,
    pipeline_tag: str,
    library: str,
    metrics: Sequence[str],
    figures: Figures,
) -> ModelCardData:
    """Language where it is known, license, base model, tags and measured figures (model-index)."""
    from huggingface_hub import ModelCardData

    base = hub_base(manifest.base)
    relation = {"base_model": base, "base_model_relation": "finetune"} if base else {}
    dataset = _dataset(manifest)[0]
    return ModelCardData(
        model_name=manifest.name,
        language=_language(manifest),
        license=manifest.license or UNKNOWN_LICENSE,
        library_name=library,
        pipeline_tag=pipeline_tag,
        tags=["onnx", "onnxruntime", "optimum", "kotune", manifest.method],
        datasets=[dataset] if "/" in dataset else None,
        metrics=list(metrics),
        eval_results=list(_results(manifest, pipeline_tag, figures)),
        **relation,
    )


def hub_base(base: BaseRecord) -> str | None:
    """The base model's hub id; None for a local folder, whose path is nobody's business."""
    return base.source if base.revision is not None else None


def base_name(base: BaseRecord) -> str:
    """What to call the base model in a sentence: its hub id or its folder's name."""
    return hub_base(base) or PurePath(base.source).name


def step_of(manifest: ArtifactManifest, precision: str) -> dict[str, Any] | None:
    """The ladder's step that measured a file; None where there is none."""
    names = (f"onnx-{precision}", precision)  # openvino's steps go without the prefix
    return next((step for step in manifest.ladder if step["name"] in names), None)


def check_card(path: Path) -> ModelCardData:
    """Read a card as the hub's library does; raises FolderError saying what is wrong with it."""
    import yaml
    from huggingface_hub import ModelCard

    try:
        data = ModelCard.load(path).data
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise FolderError(
            "the model card's metadata cannot be read", received=f"{path}: {fault}"
        ) from fault
    missing = [key for key in REQUIRED if not getattr(data, key, None)]
    if missing:
        raise FolderError(
            "the model card's metadata is not complete",
            received=path,
            allowed=f"a card with {', '.join(missing)}",
            next_step="export the run again",
        )
    return data


def _results(manifest: ArtifactManifest, task: str, figures: Figures) -> Iterator[EvalResult]:
    """Every exported file on the ladder's validation rows; the trained model on its test rows."""
    for precision in manifest.files:
        step = step_of(manifest, precision)
        if step is not None:
            what = f"{_in_words(precision)}, {step['rows']:,} rows"
            yield from _of_split(manifest, task, "validation", what, figures(step))
    tested = manifest.metrics.get("test")
    if tested:
        what = f"as trained, in PyTorch, {tested['rows']:,} rows"
        yield from _of_split(manifest, task, "test", what, figures(tested))


def _of_split(
    manifest: ArtifactManifest, task: str, split: str, what: str, figures: Sequence[Figure]
) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    identifier, name = _dataset(manifest)
    for one in figures:
        yield EvalResult(
            task_type=task,
            task_name=task.replace("-", " ").capitalize(),
            dataset_type=identifier,
            dataset_name=name,
            dataset_split=split,
            dataset_revision=manifest.data.fingerprint,
            metric_type=one.metric,
            metric_name=one.title.format(what=what),
            metric_value=round(one.value, 6),
        )


def _language(manifest: ArtifactManifest) -> str | None:
    """Its own entry, or that of the settings in a manifest written before it had one."""
    if "language" in manifest.model_fields_set:
        return manifest.language
    return manifest.settings.get("language")


def _in_words(precision: str) -> str:
    if precision.startswith("openvino-"):
        return f"OpenVINO {precision.removeprefix('openvino-')}"
    return f"ONNX {precision}"


def _dataset(manifest: ArtifactManifest) -> tuple[str, str]:
    """(hub id, or a plain word for data of one's own; a name for the reader)."""
    origin = manifest.data.origin
    if origin.startswith("NSMC"):
        return HUB_NSMC, origin
    if re.fullmatch(r"[\w.-]+/[\w.-]+", origin) and not origin.startswith("."):
        return origin, origin
    name = PurePath(origin).name.strip("${}")
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "private", name
