"""The artifact's manifest as the runtime reads it: schema, hashes, which file to open.

Shipped inside ``predict.py``, so it imports the standard library only.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finetune.core.seal import list_files, name_fault, seal_fault

SCHEMA = "kotune.artifact/1"
STATUSES = ("passed", "failed", "building")
NOTHING = type(None)
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


@dataclass(frozen=True)
class FileEntry:
    """A model file of an artifact, and what decides how it is run.

    ``instruction_set`` is of an int8 file: the name of the one it was made for, and whether its
    weights were limited to 7 bits (``reduce_range``).
    """

    path: str
    arithmetic: str | None = None
    checked_in: str | None = None
    instruction_set: dict[str, Any] | None = None
    integer_constants: int | None = None
    weight_bits: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What the runtime needs of manifest.json; ``preferred`` is provider → precision."""

    name: str
    method: str
    status: str
    labels: tuple[str, ...]
    max_length: int | None
    pad_token_id: int | None
    files: dict[str, FileEntry]
    sha256: dict[str, str]
    task: str = "text-classification"
    inputs: tuple[str, ...] = ()
    preferred: dict[str, str] = field(default_factory=dict)
    preparation: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    chunk_s: float | None = None
    stride_s: float | None = None


# what JSON may hold for a field, and in which words; lists and objects hold one kind of value
KINDS: dict[str, tuple[tuple[type, ...], str, type | None]] = {
    "str": ((str,), "a text", None),
    "str | None": ((str, NOTHING), "a text or null", None),
    "int | None": ((int, NOTHING), "a whole number or null", None),
    "float | None": ((int, float, NOTHING), "a number or null", None),
    "tuple[str, ...]": ((list,), "a list of texts", str),
    "dict[str, str]": ((dict,), "an object of texts", str),
    "dict[str, FileEntry]": ((dict,), "an object of files", dict),
    "dict[str, Any]": ((dict,), "an object", None),
    "dict[str, Any] | None": ((dict, NOTHING), "an object or null", None),
}


def read_manifest(folder: Path) -> Manifest:
    """The artifact's manifest; raises ArtifactError where there is none of this schema.

    Keys that a later minor version adds are passed over.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise ArtifactError(f"{folder} is no artifact: manifest.json: {fault}") from fault
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if found != SCHEMA:
        raise ArtifactError(f"{folder}/manifest.json has schema {found}, expected {SCHEMA}")
    files = manifest.get("files")
    for name, entry in files.items() if isinstance(files, dict) else ():
        fault = name_fault(folder, entry.get("path")) if isinstance(entry, dict) else None
        if fault:
            raise ArtifactError(f"{folder}/manifest.json: files.{name}.path: {fault}")
    return parse_manifest(manifest, f"{folder}/manifest.json")


def parse_manifest(content: dict[str, Any], source: str) -> Manifest:
    """The content of a manifest.json that is called ``source``; raises ArtifactError."""
    found = _checked_fields(Manifest, content, source, "")
    if found["status"] not in STATUSES:
        told = f"{found['status']!r}, allowed: {', '.join(STATUSES)}"
        raise ArtifactError(f"{source}: status is {told}")
    files = {
        key: FileEntry(**_checked_fields(FileEntry, entry, source, f"files.{key}."))
        for key, entry in found["files"].items()
    }
    several = ("labels", "inputs")
    listed = {key: tuple(found[key]) for key in several if key in found}
    return Manifest(**{**found, **listed, "files": files})


def _checked_fields(kind: type, content: dict[str, Any], source: str, prefix: str) -> dict:
    """The entries that ``kind`` has a field for, each of the kind of value it takes."""
    known = fields(kind)
    needed = [one.name for one in known if one.default is one.default_factory is MISSING]
    missing = [f"{prefix}{name}" for name in needed if name not in content]
    if missing:
        raise ArtifactError(f"{source} lacks {', '.join(missing)}")
    for one in known:
        kinds, words, inner = KINDS[one.type]
        value = content.get(one.name)
        right = one.name not in content or (
            isinstance(value, kinds) and not isinstance(value, bool)
        )
        if right and inner is not None and value:
            inside = value.values() if isinstance(value, dict) else value
            right = all(isinstance(part, inner) for part in inside)
        if not right:
            told = f"{value!r:.60}, allowed: {words}"
            raise ArtifactError(f"{source}: {prefix}{one.name} is {told}")
    return {one.name: content[one.name] for one in known if one.name in content}


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compare SHA-256 sums with the manifest's; raises ArtifactError naming the changed file.

    Of ``answers/`` all may be absent. What is opened, or lies beside it, has to be in the list.
    """
    names = {*manifest.sha256, *_opened(folder, manifest)}
    if not (folder / ANSWERS).exists():
        names = {name for name in names if not str(name).startswith(f"{ANSWERS}/")}
    _verify_names(folder, manifest, names)


def verify_opened(
    folder: Path,
    manifest: Manifest,
    precision: str,
    verify: bool | str,
    beside: tuple[str, ...],
) -> None:
    """Hash every file; with "read" a precision's and those ``beside`` it; with False none.

    Raises ArtifactError naming the changed file.
    """
    if verify == "read":
        path = manifest.files[precision].path
        parts = path.removesuffix("xml")  # .bin stands beside .xml, .onnx_data beside .onnx
        near = {name for name in _opened(folder, manifest) if name.startswith(parts)}
        there = {name for name in beside if (folder / name).exists()}
        _verify_names(folder, manifest, {path, *near, *there})
    elif verify:
        verify_files(folder, manifest)
        _verify_names(folder, manifest, {name for name in beside if (folder / name).exists()})


def _opened(folder: Path, manifest: Manifest) -> set[str]:
    """Model files, and whatever lies in their folders: a graph may read its weights from there."""
    paths = {entry.path for entry in manifest.files.values()}
    places = {path.rpartition("/")[0] for path in paths} - {""}
    return paths | set(list_files(folder, places))


def _verify_names(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    if fault := seal_fault(folder, manifest.sha256, names):
        raise ArtifactError(fault)


def choose_precision(manifest: Manifest, wanted: str | None, provider: str) -> str:
    """``wanted``, or the fastest file for the provider; raises ArtifactError.

    The fastest is what the manifest says it is (``preferred``), else int8 on a CPU. Where that
    one needs openvino and there is none, the next is taken with a warning.
    """
    files = manifest.files
    if wanted is None:
        measured = manifest.preferred.get(provider)
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


def can_open(entry: FileEntry) -> bool:
    """Whether the package that a file needs is installed."""
    return not entry.path.endswith(".xml") or find_spec("openvino") is not None
