"""Which model file of an artifact to open, and an ONNX Runtime session on one provider only.

Shipped inside ``predict.py``.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime

from export.runtime.arithmetic import (
    arithmetic_warning,
    onnx_options,
    provider_options,
)
from export.runtime.manifest import (
    ArtifactError,
    FileEntry,
    Manifest,
    choose_precision,
    read_manifest,
)
from export.runtime.openvino_session import OpenVinoSession
from export.runtime.processor import InstructionSet, host_instruction_set, mismatch
from export.runtime.shared_session import SharedSession

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def choose_model(
    folder: Path, task: str, precision: str | None, provider: str, *, allow_failed: bool
) -> tuple[Manifest, str]:
    """(manifest, precision) of an artifact made for ``task``; raises ArtifactError."""
    manifest = read_manifest(folder)
    if manifest.task != task:
        raise ArtifactError(f"{folder} is made for {manifest.task}, not for {task}")
    if manifest.status == "failed" and not allow_failed:
        raise ArtifactError(f"{folder} failed its export checks; see its manifest.json")
    if provider not in PROVIDERS:
        allowed = ", ".join(PROVIDERS)
        raise ArtifactError(f"provider {provider!r} is unknown; allowed: {allowed}")
    return manifest, choose_precision(manifest, precision, provider)


def warn_of_instructions(entry: FileEntry) -> None:
    """Warn where an int8 file was made for another kind of processor."""
    made_for, host = entry.instruction_set, host_instruction_set()
    told = made_for and mismatch(InstructionSet(**made_for), host)
    if entry.integer_constants is not None and entry.weight_bits is None and host.reduce_range:
        told = f"the 8-bit weights of this OpenVINO file overflow on {host.name}; export it again"
    if told:
        warnings.warn(told, RuntimeWarning, stacklevel=3)


def open_again(kind: type, folder: Path, options: dict[str, Any], manifest: Manifest) -> Any:
    """What unpickling a classifier or transcriber does: open its folder in this process.

    Raises ArtifactError where the folder's manifest is no longer the one that was opened.
    """
    opened = kind(folder, **options)
    if opened.manifest != manifest:
        raise ArtifactError(f"{folder} is no longer the artifact that was opened before")
    return opened


def open_session(path: Path, provider: str, threads: int, entry: FileEntry) -> SharedSession:
    """A session on exactly this provider, in the arithmetic that the manifest's ``entry`` states.

    It serves all threads, and forked processes too. Warns where this machine computes otherwise;
    raises ArtifactError where the provider is missing.
    """
    kind = _open_openvino if path.suffix == ".xml" else _open_onnx
    session = SharedSession(path, provider, partial(kind, path, provider, threads, entry))
    told = arithmetic_warning(session, entry, provider)
    if told:
        warnings.warn(told, RuntimeWarning, stacklevel=3)
    return session


def session_options(threads: int, entry: FileEntry) -> onnxruntime.SessionOptions:
    """Options of ONNX Runtime for a file: its threads, and its arithmetic pinned."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in onnx_options(entry).items():
        options.add_session_config_entry(key, value)
    return options


def _open_onnx(path: Path, provider: str, threads: int, entry: FileEntry) -> Any:
    wanted = PROVIDERS[provider]
    if wanted not in onnxruntime.get_available_providers():
        hint = "; pip install onnxruntime-gpu" if provider == "cuda" else ""
        raise ArtifactError(f"this onnxruntime has no {wanted}{hint}")
    if provider == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN of pip's nvidia packages (1.21)
    options = session_options(threads, entry)
    chosen = [(wanted, provider_options(provider))]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=chosen)
    except Exception as fault:  # onnxruntime's own exception types are not public
        raise ArtifactError(f"{path} cannot be opened: {fault}") from fault
    if session.get_providers()[0] != wanted:
        raise ArtifactError(f"onnxruntime could not start {wanted} and fell back; refused")
    return session


def _open_openvino(path: Path, provider: str, threads: int, entry: FileEntry) -> OpenVinoSession:
    """An OpenVINO file on the CPU; raises ArtifactError where openvino is missing."""
    if provider != "cpu":
        raise ArtifactError(f"{path.name} runs on the CPU only")
    try:
        return OpenVinoSession(path, threads, entry.arithmetic)
    except ModuleNotFoundError as fault:
        raise ArtifactError(f"{path.name} needs OpenVINO: pip install openvino") from fault
    except RuntimeError as fault:
        raise ArtifactError(f"{path} cannot be opened: {fault}") from fault
