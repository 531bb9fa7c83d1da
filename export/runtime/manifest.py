"""The artifact's manifest as the runtime reads it: schema, hashes, which file to open.

Shipped inside ``predict.py``, so it imports the standard library only.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finetune.core.seal import list_files, name_fault, seal_fault

SCHEMA = "kotune.artifact/1"
MANIFEST_KEYS = {
    "name": str,
    "method": str,
    "status": str,
    "labels": list,
    "max_length": int | None,
    "pad_token_id": int | None,
    "files": dict,
    "sha256": dict,
}
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
    except (OSError, ValueError, RecursionError) as fault:
        raise ArtifactError(f"{folder} is no artifact: manifest.json: {fault}") from fault
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if found != SCHEMA:
        raise ArtifactError(f"{folder}/manifest.json has schema {found}, expected {SCHEMA}")
    missing = [key for key in MANIFEST_KEYS if key not in manifest]
    if missing:
        raise ArtifactError(f"{folder}/manifest.json lacks {', '.join(missing)}")
    for key, kind in MANIFEST_KEYS.items():
        if not isinstance(manifest[key], kind) or isinstance(manifest[key], bool):
            raise ArtifactError(
                f"{folder}/manifest.json: {key} is {type(manifest[key]).__name__}, not {kind}"
            )
    for name, entry in manifest["files"].items():
        path = entry.get("path") if isinstance(entry, dict) else None
        if fault := name_fault(folder, path):
            raise ArtifactError(f"{folder}/manifest.json: the file of {name}: {fault}")
    return manifest


def verify_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare SHA-256 sums with the manifest's; raises ArtifactError naming the changed file.

    Of ``answers/`` all may be absent. What is opened, or lies beside it, has to be in the list.
    """
    names = {*manifest["sha256"], *_opened(folder, manifest)}
    if not (folder / ANSWERS).exists():
        names = {name for name in names if not str(name).startswith(f"{ANSWERS}/")}
    _verify_names(folder, manifest, names)


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
    if verify == "read":
        path = manifest["files"][precision]["path"]
        parts = path.removesuffix("xml")  # .bin stands beside .xml, .onnx_data beside .onnx
        near = {name for name in _opened(folder, manifest) if name.startswith(parts)}
        there = {name for name in beside if (folder / name).exists()}
        _verify_names(folder, manifest, {path, *near, *there})
    elif verify:
        verify_files(folder, manifest)
        _verify_names(folder, manifest, {name for name in beside if (folder / name).exists()})


def _opened(folder: Path, manifest: dict[str, Any]) -> set[str]:
    """Model files, and whatever lies in their folders: a graph may read its weights from there."""
    paths = {entry["path"] for entry in manifest["files"].values()}
    places = {path.rpartition("/")[0] for path in paths} - {""}
    return paths | set(list_files(folder, places))


def _verify_names(folder: Path, manifest: dict[str, Any], names: Iterable[str]) -> None:
    if fault := seal_fault(folder, manifest["sha256"], sorted(names, key=str)):
        raise ArtifactError(fault)


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
