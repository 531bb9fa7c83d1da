"""The artifact's manifest as the runtime reads it: schema, hashes, which file to open.

Shipped inside ``predict.py``, so it imports the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SCHEMA = "kotune.artifact/1"
MANIFEST_KEYS = (
    "name",
    "method",
    "status",
    "labels",
    "max_length",
    "pad_token_id",
    "files",
    "sha256",
)
PREFERENCE = {"cpu": ("int8", "fp32"), "cuda": ("fp16", "fp32")}
BATCH_TOKENS = {  # padded tokens a batch: activations that stay in a core's cache, or fill a GPU
    "cpu": 512,
    "cuda": 16_384,
}
ANSWERS = "answers"  # the folder of rows and logits to compare with; its owner may delete it
CPU_ONLY = ("int8", "int8-static")  # integer operators without CUDA kernels


class ArtifactError(Exception):
    """A folder, precision or provider this runtime cannot serve."""


class TextError(ArtifactError, TypeError):
    """What was given as texts and is none; names the number of the first that is no string."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The artifact's manifest; raises ArtifactError where there is none of this schema."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ArtifactError(f"{folder} is no artifact: manifest.json: {fault}") from fault
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if found != SCHEMA:
        raise ArtifactError(f"{folder}/manifest.json has schema {found}, expected {SCHEMA}")
    missing = [key for key in MANIFEST_KEYS if key not in manifest]
    if missing:
        raise ArtifactError(f"{folder}/manifest.json lacks {', '.join(missing)}")
    return manifest


def verify_files(
    folder: Path, manifest: dict[str, Any], only: tuple[str, ...] | None = None
) -> None:
    """Compare SHA-256 sums with the manifest's; raises ArtifactError naming the changed file.

    ``only`` limits it to these files and their external data (``model.onnx_data``). Of ``answers/``
    all may be absent.
    """
    names = [name for name in manifest["sha256"] if only is None or name.startswith(only)]
    if not (folder / ANSWERS).exists():
        names = [name for name in names if not name.startswith(f"{ANSWERS}/")]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing lets go of the GIL
        found = list(pool.map(lambda name: _sha256(folder / name), names))
    for name, digest in zip(names, found, strict=True):
        if digest is None:
            raise ArtifactError(f"{folder / name} is missing or unreadable")
        if digest != manifest["sha256"][name]:
            raise ArtifactError(f"{folder / name} was changed: its SHA-256 is not the manifest's")


def verify_opened(
    folder: Path,
    manifest: dict[str, Any],
    precision: str,
    verify: bool | str,
    beside: tuple[str, ...],
) -> None:
    """Hash every file; with "read" a precision's and those ``beside`` it; with False none.

    Raises ArtifactError naming the changed file.
    """
    if not verify:
        return
    parts = manifest["files"][precision]["path"].removesuffix("xml")  # .bin stands beside .xml
    verify_files(folder, manifest, (*beside, parts) if verify == "read" else None)


def choose_precision(manifest: dict[str, Any], wanted: str | None, provider: str) -> str:
    """``wanted``, or the fastest file for the provider; raises ArtifactError.

    The fastest is what the manifest says it is (``preferred``), else int8 on a CPU. Where that
    one needs openvino and there is none, the next is taken with a warning.
    """
    files = manifest["files"]
    if wanted is None:
        measured = manifest.get("preferred", {}).get(provider)
        known = [name for name in (measured, *PREFERENCE[provider]) if name in files]
        able = [name for name in known if can_open(files[name])]
        wanted = next(iter(able or known), None)
        if known and wanted != known[0]:
            told = f"{known[0]}, the fastest file, needs openvino; using {wanted}"
            warnings.warn(f"{told} (pip install openvino)", RuntimeWarning, stacklevel=3)
    if wanted not in files:
        raise ArtifactError(
            f"no {wanted or 'fp32'} file in this artifact; it has: {', '.join(files)}"
        )
    if provider == "cuda" and (wanted in CPU_ONLY or wanted.startswith("openvino")):
        raise ArtifactError(f"{wanted} runs on the CPU only; with CUDA use fp16 or fp32")
    return wanted


def can_open(entry: dict[str, Any]) -> bool:
    """Whether the package that a file needs is installed."""
    return not entry["path"].endswith(".xml") or find_spec("openvino") is not None


def _sha256(path: Path) -> str | None:
    try:
        digest, buffer = hashlib.sha256(), bytearray(1 << 20)
        with path.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                digest.update(memoryview(buffer)[:count])
        return digest.hexdigest()
    except OSError:
        return None
