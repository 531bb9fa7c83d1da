"""Where an artifact comes from and what was measured before it: for its manifest and card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.core.errors import KotuneError
from finetune.core.files import sha256_file
from finetune.models.source import TINY
from finetune.recipes.files import expand_path
from finetune.run_folder import Run, read_document


def describe_origin(run: Run, folder: Path, license: str | None) -> dict[str, Any]:
    """The manifest's ``parent``, ``tokenizer_sha256``, ``data``, ``metrics`` and ``license``.

    ``folder`` is the artifact under construction, with its tokenizer. ``license`` is the
    recipe's; None takes the base model's own, where its card says one.
    """
    return {
        "parent": {
            "run": run.name,
            "run_sha256": sha256_file(run.folder / "run.json"),
            "files": run.info["files"],
        },
        "tokenizer_sha256": sha256_file(folder / "tokenizer.json"),
        "data": {
            "origin": read_document(run, "data.json")["origin"],
            "fingerprint": run.info["data_fingerprint"],
        },
        "metrics": _trained_metrics(run),
        "license": license or base_license(run.base),
    }


def base_license(base: dict[str, Any]) -> str | None:
    """The license the base model's card states, from its folder or the hub's cache; else None."""
    from huggingface_hub import ModelCard

    card = _base_card(base)
    if card is None:
        return None
    try:
        return ModelCard.load(card, ignore_metadata_errors=True).data.license
    except (OSError, ValueError):
        return None


def _base_card(base: dict[str, Any]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    if base["revision"] is not None:
        found = try_to_load_from_cache(base["source"], "README.md", revision=base["revision"])
        return Path(found) if isinstance(found, str) else None
    try:
        folder = TINY if base["source"] == "tiny" else expand_path(base["source"], "model.source")
    except KotuneError:
        return None
    return folder / "README.md" if (folder / "README.md").is_file() else None


def _trained_metrics(run: Run) -> dict[str, Any]:
    """Accuracy and F1 of the model as it was trained, by split, over all rows of it."""
    metrics = read_document(run, "metrics.json")
    wanted = ("rows", "accuracy", "accuracy_interval", "f1_macro", "f1_binary")
    return {
        split: {key: metrics[split]["all"][key] for key in wanted if key in metrics[split]["all"]}
        for split in ("validation", "test")
        if metrics.get(split)
    }
