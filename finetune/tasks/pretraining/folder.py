"""The folder a pretraining leaves, its card, and the half-size copy that is embedded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from finetune.core.documents import write_document
from finetune.core.errors import FolderError, ModelError
from finetune.core.files import publish_folder, read_json, write_json, write_text
from finetune.core.provenance import PROVENANCE_SCHEMA, Provenance, collect_provenance
from finetune.models.tokenizer import save_tokenizer
from finetune.recipes.files import check_recipe, dump_recipe
from finetune.recipes.pretraining import PretrainRecipe
from finetune.run_records import Course

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

METRICS = "kotune.pretrain/1"


def is_pretrained(folder: Path) -> bool:
    """Whether ``folder`` is what ``kotune pretrain`` writes."""
    try:
        read_json(folder / "metrics.json", METRICS)
    except FolderError:
        return False
    return (folder / "model.safetensors").is_file()


def read_metrics(folder: Path) -> tuple[PretrainRecipe, dict[str, Any]]:
    """Recipe and figures of a pretrained folder; raises FolderError and RecipeError."""
    content = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    recipe = check_recipe(PretrainRecipe, content, str(folder / "recipe.yaml"))
    return recipe, read_json(folder / "metrics.json", METRICS)


def write_model_folder(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: PretrainRecipe,
    metrics: dict[str, Any],
    course: Course,
) -> None:
    """Model with its masked-language head, tokenizer, recipe, figures, provenance and card.

    Raises ModelError where a weight is not finite.
    """
    import torch

    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(
            "the training left weights that are not finite",
            received=", ".join(broken[:3]),
            next_step="a lower training.learning_rate",
        )
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone
    save_tokenizer(tokenizer, folder)
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    write_json(folder / "metrics.json", METRICS, metrics)
    provenance = collect_provenance(recipe.seed).model_copy(update={"training": course})
    write_document(folder / "provenance.json", PROVENANCE_SCHEMA, provenance)
    write_text(folder / "README.md", model_card(recipe, metrics, provenance))


def model_card(recipe: PretrainRecipe, metrics: dict[str, Any], provenance: Provenance) -> str:
    """What the model learnt from, how long, how well, and by which command."""
    corpus, held_out = metrics["corpus"], metrics["held_out"]
    origin = f"continued from `{recipe.model}`" if recipe.model else "from scratch"
    length = f"{metrics['steps']:,} steps, {metrics['epochs']:.1f} epochs"
    column = f", column `{corpus['text_column']}`" if corpus["text_column"] else ""
    return f"""# {recipe.name}

An encoder pretrained by masked-language modelling, {origin}, with kotune.

| | |
|---|---|
| text | `{corpus["path"]}`{column}: {corpus["train_texts"]:,} distinct texts |
| held out, never trained on | {corpus["held_out_texts"]:,} distinct texts |
| tokens seen | {metrics["tokens_seen"]:,} in {length} |
| parameters | {metrics["parameters"]:,} |
| held-out loss | {held_out["loss"]:.4f} at {recipe.training.mask_probability:.0%} masking |
| held-out masked accuracy | {held_out["accuracy"]:.2%} of {held_out["masked_tokens"]:,} tokens |
| trained on | {provenance.hardware.cpu}, {metrics["device"]}, {metrics["precision"]} |
| command | `{provenance.command}` |

Licence: the text keeps its own (NSMC is CC0 1.0), and a continued model that of the model it
was continued from; this folder holds no text but the pieces of the vocabulary.
Settings are in `recipe.yaml`, figures in `metrics.json`, versions and commit in
`provenance.json`.
"""


def embed_model(folder: Path, target: Path) -> Path:
    """A copy of a pretrained folder with float16 weights, half the size; returns ``target``.

    Everything else is copied as it is. AutoModelForSequenceClassification.from_pretrained and
    AutoModelForMaskedLM.from_pretrained load it. Raises FolderError and ModelError.
    """
    import torch
    from safetensors.torch import load_file, save_file

    if not is_pretrained(folder):
        raise FolderError(
            "not a pretrained model", received=folder, next_step="kotune pretrain RECIPE makes one"
        )
    if not is_pretrained(target) and target.exists() and any(target.iterdir()):
        raise FolderError(
            "the copy's folder is in use by something that is not a pretrained model",
            received=target,
            next_step="--embed another folder",
        )
    weights = load_file(folder / "model.safetensors")
    halved = {
        name: value.to(torch.float16) if value.is_floating_point() else value
        for name, value in weights.items()
    }
    if not all(torch.isfinite(value).all() for value in halved.values()):
        raise ModelError("a weight does not fit float16", received=folder)
    with publish_folder(target) as temporary:
        for path in folder.iterdir():
            if path.is_file() and path.suffix != ".safetensors":
                shutil.copyfile(path, temporary / path.name)
        save_file(halved, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "model.safetensors").chmod(0o644)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        body = json.dumps({**config, "dtype": "float16"}, indent=2, ensure_ascii=False)
        write_text(temporary / "config.json", body + "\n")
        card = (folder / "README.md").read_text("utf-8")
        write_text(
            temporary / "README.md", card + "\nThis copy's weights are rounded to float16.\n"
        )
    return target
