"""Where a result comes from: versions, commit and dirty flag, hardware, time, command."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from pydantic import Field

from finetune.core.cpu_flags import cpu_flags
from finetune.core.documents import Document

PROVENANCE_SCHEMA = "kotune.provenance/1"
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "optimum",
    "optimum-onnx",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "nvidia-ml-py",
    "openvino",
    "nncf",
    "tokenizers",
    "scikit-learn",
    "numpy",
    "soundfile",
    "soxr",
)


class Hardware(Document):
    """The machine: its processor with the instructions that matter here, memory, GPUs."""

    cpu: str
    cpu_flags: tuple[str, ...] = ()
    cores: int | None = None
    memory_bytes: int
    gpus: tuple[str, ...] = ()
    nvidia_driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    compute_capability: str | None = None


class Provenance(Document):
    """provenance.json: code, packages, hardware and command of what made a folder.

    ``training`` is how a training went: starts, processes, micro-batch.
    """

    created: str
    command: str
    seed: int | None = None
    kotune: str | None = None
    git: dict[str, Any] | None = None
    python: str | None = None
    platform: str | None = None
    packages: dict[str, str] = Field({})
    hardware: Hardware
    training: Any = None


def collect_provenance(seed: int | None = None) -> Provenance:
    """A record of this process: code, packages, hardware, command."""
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        seed=seed,
        kotune=package_version("kotune"),
        git=git_state(),
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: version for name in PACKAGES if (version := package_version(name))},
        hardware=describe_hardware(),
    )


def package_version(name: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout this code runs from; None outside of one.

    As they were when first asked for: what takes long asks as it begins, since the code that runs
    is that one.
    """
    here = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "--no-optional-locks", *arguments],
                cwd=here,
                capture_output=True,
                text=True,
                timeout=10,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "pyproject.toml") is None:
        return None
    commit = git("rev-parse", "HEAD")
    return commit and {"commit": commit, "dirty": bool(git("status", "--porcelain"))}


def cpu_has_bf16() -> bool:
    """Whether bfloat16 matrix products run in hardware (avx512_bf16 or AMX)."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})


def describe_hardware() -> Hardware:
    """CPU, cores, memory and, where torch is loaded and sees one, the GPU."""
    notable = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}
    affinity = hasattr(os, "sched_getaffinity")
    return Hardware(
        cpu=_cpu_name(),
        cpu_flags=tuple(sorted(cpu_flags() & notable)),
        cores=len(os.sched_getaffinity(0)) if affinity else os.cpu_count(),
        memory_bytes=psutil.virtual_memory().total,
        gpus=tuple(_gpu_names()),
        **describe_cuda(),
    )


def describe_cuda() -> dict[str, str]:
    """The NVIDIA driver, and the CUDA and cuDNN of the PyTorch that is loaded; those there are."""
    found: dict[str, str] = {}
    try:
        told = re.search(r"Module\s+(\S+)", NVIDIA_DRIVER.read_text())
        found |= {"nvidia_driver": told[1]} if told else {}
    except OSError:
        pass
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
        if torch.cuda.is_available():
            major, minor = torch.cuda.get_device_capability()
            found["compute_capability"] = f"{major}.{minor}"
            found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
