"""The files a model is loaded from, resolved and checked before any library opens one.

Safetensors only, whole, and inside the model's folder: config.json, an index of shards and
tokenizer_config.json could each lead transformers to another file. No library needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune.core.errors import ModelError
from finetune.core.seal import is_inside

WHOLE, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
LFS_POINTER = b"version https://git-lfs"
LENGTH_BYTES = 8  # in front of the header, little endian
TOKENIZER_FILES = ("tokenizer_file", "vocab_file", "merges_file", "spm_file", "sp_model_file")


def check_weight_files(folder: Path, source: str) -> None:
    """Raise ModelError where the weights of a model folder cannot be what they claim to be.

    A pointer of git-lfs, a download that was cut off, a shard that is absent, an adapter.
    """
    if (folder / ADAPTER).is_file():  # transformers would load the adapter's base instead
        raise ModelError(
            f"model.source holds an adapter ({ADAPTER}), not a whole model",
            received=source,
            next_step="the base model; or merge the adapter into it and save_pretrained that",
        )
    if not (folder / WHOLE).is_file() and not (folder / INDEX).is_file():
        found = sorted(path.name for path in folder.glob("*.safetensors"))
        raise ModelError(
            f"the model folder has neither {WHOLE} nor {INDEX}",
            received=f"{source} with {', '.join(found)}",
            next_step="the folder of a whole model, as save_pretrained writes it",
        )
    for path in weight_paths(folder, source):
        check_weight_file(path)


def weight_paths(folder: Path, source: str) -> list[Path]:
    """The files that hold the weights and no other, each inside the folder; raises ModelError."""
    paths = [folder / name for name in _used_files(folder, source)]
    for path in paths:
        if not is_inside(path, folder):
            raise ModelError(
                f"a file of the weights lies outside the model's folder: {path.name}",
                received=f"{source}: {path.resolve()}",
                allowed="files of the folder itself",
                next_step="copy the file into the folder, in place of the link",
            )
    return paths


def check_settings_files(folder: Path, source: str) -> None:
    """Raise ModelError where config.json or tokenizer_config.json is no object or leads away."""
    config = read_settings(folder / "config.json", source)
    if "transformers_weights" in config:
        raise ModelError(
            "config.json names another file of weights (transformers_weights)",
            received=f"{source}: {config['transformers_weights']}",
            allowed=f"{WHOLE}, or the shards of {INDEX}",
            next_step="remove that key",
        )
    if not (folder / "tokenizer_config.json").exists():
        return
    told = read_settings(folder / "tokenizer_config.json", source)
    for key in TOKENIZER_FILES:
        named = told.get(key)
        if isinstance(named, str) and Path(named).is_file() and not is_inside(Path(named), folder):
            raise ModelError(
                f"tokenizer_config.json leads to a file outside the model's folder ({key})",
                received=f"{source}: {named}",
                next_step="remove that key",
            )


def read_settings(path: Path, source: str) -> dict[str, Any]:
    """A JSON object that a library will read; ModelError where it is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise ModelError(f"{path.name} is not JSON", received=f"{source}: {fault}") from fault
    if not isinstance(found, dict):
        raise ModelError(
            f"{path.name} is not a JSON object", received=f"{source}: {type(found).__name__}"
        )
    return found


def check_weight_file(path: Path) -> None:
    """Compare a file's size with what its header says of it; raises ModelError."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(LENGTH_BYTES)
            length = int.from_bytes(start, "little")
            header = start + stream.read(min(length, size))
    except OSError as fault:
        raise ModelError("the weights cannot be read", received=f"{path}: {fault}") from fault
    if header.startswith(LFS_POINTER):
        raise ModelError(
            "the weights are a git-lfs pointer, not the weights themselves",
            received=f"{path}, {size:,} bytes",
            next_step="git lfs pull in that repository, or download the file again",
        )
    try:
        tensors = json.loads(header[LENGTH_BYTES:])
        offsets = [
            one["data_offsets"][1] for name, one in tensors.items() if name != "__metadata__"
        ]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as fault:
        raise ModelError(
            "the weights are no safetensors file, or cut off within its header",
            received=f"{path}, {size:,} bytes",
            next_step="download the file again, or save_pretrained(..., safe_serialization=True)",
        ) from fault
    ends = [end for end in offsets if isinstance(end, int)]
    expected = len(header) + max(ends, default=0)
    if size != expected:
        raise ModelError(
            f"the weights are {'cut off' if size < expected else 'longer than their header says'}",
            received=f"{path}, {size:,} bytes",
            allowed=f"{expected:,} bytes, as its header says",
            next_step="download the file again",
        )


def _used_files(folder: Path, source: str) -> list[str]:
    """The files transformers would read: the whole one, else the shards of the index."""
    if (folder / WHOLE).is_file():
        return [WHOLE]
    try:
        named = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()
        names = sorted({str(name) for name in named})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise ModelError(f"{INDEX} is not an index of shards", received=source) from fault
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{INDEX} names a file that is no shard of this folder",
                received=f"{source}: {name}",
                allowed="names that end with .safetensors; pickle files are never read",
                next_step="save_pretrained(..., safe_serialization=True)",
            )
    if not names:
        raise ModelError(f"{INDEX} names no file", received=source)
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise ModelError(
            f"{len(absent)} of {len(names)} files of the model's weights are absent",
            received=f"{source} without {', '.join(absent[:8])}",
            next_step="download the model again, with every shard",
        )
    return names
