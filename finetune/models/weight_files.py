"""Safetensors files before they are loaded: whole, and weights at all; no library needed."""

from __future__ import annotations

import json
from pathlib import Path

from finetune.core.errors import ModelError

WHOLE, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
LFS_POINTER = b"version https://git-lfs"
LENGTH_BYTES = 8  # in front of the header, little endian


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
    for name in _used_files(folder, source):
        check_weight_file(folder / name)


def check_weight_file(path: Path) -> None:
    """Compare a file's size with what its header says of it; raises ModelError."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(LENGTH_BYTES)
        length = int.from_bytes(start, "little")
        header = start + stream.read(min(length, size))
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
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise ModelError(
            "the weights are no safetensors file, or cut off within its header",
            received=f"{path}, {size:,} bytes",
            next_step="download the file again, or save_pretrained(..., safe_serialization=True)",
        ) from fault
    expected = len(header) + max(offsets, default=0)
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
        names = sorted(set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise ModelError(f"{INDEX} is not an index of shards", received=source) from fault
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise ModelError(
            f"{len(absent)} of {len(names)} files of the model's weights are absent",
            received=f"{source} without {', '.join(absent)}",
            next_step="download the model again, with every shard",
        )
    return names
