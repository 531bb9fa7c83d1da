"""Which base model a recipe means: the embedded one, a local folder, or a hub id.

Resolved before anything heavy is loaded, so that a mistake is told at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.core.errors import ModelError
from finetune.core.files import sha256_file
from finetune.models.weight_files import check_settings_files, check_weight_files, weight_paths
from finetune.recipes.files import expand_path

ASSETS = Path(__file__).parent.parent / "assets"
TINY = ASSETS / "tiny"
TOKENIZER = TINY  # its vocabulary also reads text for the random-weights sizes
STAGE_FILES = {
    "run.json": "a run folder",
    "manifest.json": "an artifact folder",
    "seeds.json": "a summary of several seeds",
    "sweep.json": "a sweep folder",
}

# The exact published sizes (config.json of each model on the hub), for random weights.
KLUE = {
    "klue/roberta-small": {"hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12},
    "klue/roberta-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "klue/roberta-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
}


@dataclass(frozen=True)
class BaseModel:
    """A base model that exists. ``source`` is what the recipe said, ``location`` where it is."""

    source: str
    location: str
    revision: str | None = None
    local_only: bool = True
    random_weights: bool = False
    seed: int = 0
    weights_sha256: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """What the run folder keeps; the machine's own path is left out."""
        return {key: value for key, value in asdict(self).items() if key != "location"}


def resolve_base(
    source: str, revision: str | None = None, *, random_weights: bool = False, seed: int = 0
) -> BaseModel:
    """Find the model ``source`` names; raises ModelError with what to try next."""
    if random_weights and source in KLUE:
        return BaseModel(source, source, random_weights=True, seed=seed)
    folder = TINY if source == "tiny" else expand_path(source, "model.source")
    if folder.is_dir():
        _check_folder(folder, source, random_weights)
        digest = None if random_weights else hash_weights(weight_paths(folder, source))
        return BaseModel(
            source, str(folder), None, True, random_weights, seed, weights_sha256=digest
        )
    if source == "tiny":
        raise ModelError(
            "the embedded model is not in this installation",
            received=source,
            next_step="kotune pretrain configs/pretrain/tiny.yaml makes one",
        )
    if folder.exists() or source.startswith((".", "/", "~", "$")) or source.count("/") > 1:
        raise ModelError(
            "model.source is neither a model folder nor a hub id",
            received=source,
            allowed="a folder with config.json and *.safetensors, owner/name, or tiny",
        )
    from finetune.core.hub import resolve_hub_model

    commit, local_only = resolve_hub_model(source, revision, "model.source")
    return BaseModel(source, source, commit, local_only, random_weights, seed)


def _check_folder(folder: Path, source: str, random_weights: bool) -> None:
    for name, kind in STAGE_FILES.items():
        if (folder / name).exists():
            raise ModelError(
                f"model.source is {kind}, not a base model",
                received=source,
                next_step="the base model the run was trained from",
            )
    if not (folder / "config.json").is_file():
        raise ModelError("the model folder has no config.json", received=source)
    check_settings_files(folder, source)
    if not random_weights and not list(folder.glob("*.safetensors")):
        pickles = [path.name for path in folder.glob("*.bin")]
        raise ModelError(
            "the model folder has no weights in safetensors format",
            received=f"{source}{' with ' + pickles[0] if pickles else ''}",
            allowed="model.safetensors; pickle files are never read",
            next_step="python unpack.py FOLDER, where the model is packed"
            if (folder / "unpack.py").exists()
            else "save_pretrained(..., safe_serialization=True)",
        )
    if not random_weights:
        check_weight_files(folder, source)


def hash_weights(paths: Sequence[Path]) -> str:
    """SHA-256 over the names and bytes of safetensors files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.name}:{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def stored_files(base: BaseModel) -> list[Path]:
    """The safetensors files of a base and no other, checked; fetched from the hub if need be.

    Raises ModelError where they are absent, damaged, outside the folder, or an adapter's.
    """
    folder = Path(base.location)
    if not folder.is_dir():
        from finetune.core.hub import fetch_weights

        folder = fetch_weights(base.location, base.revision, local_only=base.local_only)
        check_settings_files(folder, base.source)
        check_weight_files(folder, base.source)
    return weight_paths(folder, base.source)
