"""``kotune doctor``: what this machine and its libraries mean for training, export and files."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from finetune.core.cpu_flags import cpu_flags
from finetune.core.errors import GateError
from finetune.core.provenance import cpu_has_bf16, describe_hardware, package_version

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"  # of a checkout
ROOM_BYTES = 5 << 30  # a roberta-large run: weights, optimizer states, two checkpoints
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
CGROUP = Path("/sys/fs/cgroup")
VNNI = {"avx512_vnni", "avx_vnni"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at; ``next_step`` says what to do where it is not well."""

    topic: str
    status: Literal["ok", "warning", "fault"]
    told: str
    next_step: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def examine() -> list[Finding]:
    """Everything, in the order of a reader's questions; no look raises."""
    looks: list[Callable[[], Iterator[Finding]]] = [
        look_at_packages,
        look_at_processor,
        look_at_threads,
        look_at_memory,
        look_at_gpu,
        look_at_four_bit,
        look_at_runtimes,
        look_at_disk,
        look_at_caches,
    ]
    found: list[Finding] = []
    for look in looks:
        try:
            found += look()
        except Exception as fault:  # a broken library is what a doctor is called for
            topic = look.__name__.removeprefix("look_at_").replace("_", " ")
            told = f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"
            found.append(Finding(topic, "fault", told, "reinstall the library that is named"))
    return found


def look_at_packages() -> Iterator[Finding]:
    """Installed versions against kotune's ranges, and against the tested ones of a checkout."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(one) for one in importlib.metadata.requires("kotune") or ()]
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", "warning", "kotune itself is not installed", "pip install -e .")
        return
    wrong = []
    for one in wanted:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        have = package_version(one.name)
        if have is None or not one.specifier.contains(have, prereleases=True):
            wrong.append(f"{one} (here: {have or 'not installed'})")
    if wrong:
        fix = "pip install --upgrade kotune, in an environment of its own"
        yield Finding("packages", "fault", "out of range: " + "; ".join(wrong), fix)
    else:
        told = f"Python {sys.version.split()[0]}, {len(wanted)} requirements, all in range"
        yield Finding("packages", "ok", told)
    yield from _against_tested()


def _against_tested() -> Iterator[Finding]:
    newer = CONSTRAINTS.with_name("constraints-transformers5.txt")
    is_newer = not (package_version("transformers") or "4").startswith("4") and newer.is_file()
    path = newer if is_newer else CONSTRAINTS
    if not path.is_file():
        return
    others = []
    for name, tested in re.findall(r"^([\w.-]+)==(\S+)$", path.read_text("utf-8"), re.M):
        have = package_version(name)
        if have is not None and have.partition("+")[0] != tested.partition("+")[0]:
            others.append(f"{name} {have} (tested: {tested})")
    if others:
        more = f" and {len(others) - 6} more" if len(others) > 6 else ""
        told = "other versions than tested: " + ", ".join(others[:6]) + more
        yield Finding("tested versions", "warning", told, f"pip install -c {path.name} kotune")
    else:
        yield Finding("tested versions", "ok", "what is installed is what was tested")


def look_at_processor() -> Iterator[Finding]:
    """Instruction sets, and what they mean for int8 and bf16."""
    flags, here = cpu_flags(), describe_hardware()
    name = f"{here.cpu} ({' '.join(here.cpu_flags) or 'instruction sets unknown'})"
    if flags and "avx2" not in flags:
        yield Finding(
            "processor", "warning", f"{name}: no AVX2, everything is several times slower"
        )
        return
    yield Finding("processor", "ok", name)
    if not flags:
        return
    if flags & (VNNI | {"amx_int8"}):
        yield Finding("int8", "ok", "int8 products in hardware; weights keep 8 bits")
    else:
        told = "no VNNI: exports quantise weights to 7 bits, since sums of 8 would overflow here"
        yield Finding("int8", "ok", told)
    if cpu_has_bf16():
        yield Finding("bf16", "ok", "bf16 products in hardware; `precision: auto` trains in bf16")
    else:
        told = "no bf16 products: `precision: auto` trains in fp32, openvino-bf16 is not made here"
        yield Finding("bf16", "ok", told)


def look_at_threads() -> Iterator[Finding]:
    """Cores that this process may use, and limits that libraries do not know of."""
    cores = describe_hardware().cores
    share = cpu_quota()
    told = f"{cores} of {os.cpu_count()} cores"
    if share is not None and share < cores and not any(os.environ.get(name) for name in THREADS):
        fix = f"export OMP_NUM_THREADS={max(1, int(share))}"
        told += f", of which a limit leaves {share:g}: libraries start {cores} threads and wait"
        yield Finding("threads", "warning", told, fix)
        return
    for name in THREADS:
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > cores:
            told += f"; {name}={value} is more"
            yield Finding("threads", "warning", told, f"unset {name}")
            return
    yield Finding("threads", "ok", told + (f", limited to {share:g}" if share else ""))


def cpu_quota(root: Path = CGROUP) -> float | None:
    """Cores that the control group leaves, None without a limit (cgroup v2 and v1)."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def look_at_memory() -> Iterator[Finding]:
    """Memory that is free now, and a control group's limit."""
    memory = psutil.virtual_memory()
    told = f"{_gib(memory.available)} GiB of {_gib(memory.total)} available"
    limit = memory_limit()
    if limit is not None and limit < memory.total:
        told += f", limited to {_gib(limit)}"
    least = min(memory.available, limit or memory.available)
    fix = "kotune plan RECIPE --memory SIZE tells what fits"
    low = least < 2 << 30
    yield Finding("memory", "warning" if low else "ok", told, fix if low else None)


def memory_limit(root: Path = CGROUP) -> int | None:
    """The control group's limit in bytes, None without one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            value = (root / name).read_text().strip()
            return int(value) if value.isdigit() else None
        except OSError:
            continue
    return None


def look_at_gpu() -> Iterator[Finding]:
    """What PyTorch sees of a GPU, or why it sees none."""
    import torch

    from finetune.hardware.gpu import unusable_gpu

    reason = unusable_gpu()
    if reason:
        fix = "a driver or a PyTorch build that fit each other: https://pytorch.org/get-started"
        yield Finding("gpu", "fault", reason, fix)
    elif not torch.cuda.is_available():
        told = f"none; PyTorch {torch.__version__} trains on the CPU"
        yield Finding("gpu", "ok", told)
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        one = torch.cuda.get_device_properties(index)
        half = "bf16" if one.major >= 8 else "fp16 (no bf16 before Ampere)"
        told = (
            f"{index}: {one.name}, {_gib(one.total_memory)} GiB, CUDA {torch.version.cuda}, {half}"
        )
        yield Finding("gpu", "ok", told)


def look_at_four_bit() -> Iterator[Finding]:
    """Whether bitsandbytes quantises a matrix and gives it back, which QLoRA rests on."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = torch.linspace(-1, 1, 4096, device=device).reshape(64, 64)
    packed, state = quantize_4bit(weights, quant_type="nf4")
    off = (dequantize_4bit(packed, state) - weights).abs().max().item()
    version = f"bitsandbytes {package_version('bitsandbytes')} on {device}"
    if off < 0.2:  # NF4's widest gap is 0.3 of a block's largest value
        yield Finding("4-bit", "ok", version)
    else:
        told = f"{version} gives back matrices that are off by {off:.2f}"
        yield Finding("4-bit", "fault", told, "another version of bitsandbytes")


def look_at_runtimes() -> Iterator[Finding]:
    """ONNX Runtime's execution providers; OpenVINO and NNCF."""
    import onnxruntime

    both = [one for one in ("onnxruntime", "onnxruntime-gpu") if package_version(one)]
    told = f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"
    if len(both) > 1:
        fix = "pip uninstall onnxruntime onnxruntime-gpu; then install one of them"
        yield Finding("onnxruntime", "fault", "two packages write the same files: " + told, fix)
    else:
        yield Finding("onnxruntime", "ok", told)
    absent = [one for one in ("openvino", "nncf") if importlib.util.find_spec(one) is None]
    if absent:
        told = f"{', '.join(absent)} not installed: no openvino-* precisions"
        yield Finding("openvino", "ok", told, "pip install kotune[openvino]")
    else:
        yield Finding("openvino", "ok", f"{package_version('openvino')}")


def look_at_disk() -> Iterator[Finding]:
    """Room, and whether files can be written, where runs, caches and temporary files go."""
    from huggingface_hub.constants import HF_HOME

    places = {"here": Path.cwd(), "temporary files": _temporary(), "downloads": Path(HF_HOME)}
    for name, path in places.items():
        there = next(one for one in (path, *path.parents) if one.exists())
        free = shutil.disk_usage(there).free
        told = f"{name}: {_gib(free)} GiB free in {path}"
        if not os.access(there, os.W_OK):
            yield Finding(
                "disk", "fault", f"{told}, where nothing can be written", _elsewhere(name)
            )
        elif free < ROOM_BYTES:
            yield Finding("disk", "warning", told, "a full-size run needs about 5 GiB")
        else:
            yield Finding("disk", "ok", told)


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # no folder that can be written to
        return Path(os.environ.get("TMPDIR", "/tmp"))


def _elsewhere(name: str) -> str:
    return {
        "here": "cd to a folder of your own",
        "temporary files": "export TMPDIR=FOLDER",
        "downloads": "export HF_HOME=FOLDER",
    }[name]


def look_at_caches() -> Iterator[Finding]:
    """Where models and data from the hub are kept, and whether it may be asked."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    held = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _is_on(name)]
    told = f"{held} models of the hub in {cache}"
    if offline:
        told += f"; offline ({', '.join(offline)})"
    yield Finding("hub", "ok", told)


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}


def _gib(size: float) -> str:
    return f"{size / (1 << 30):.1f}"


def check_findings(found: list[Finding]) -> None:
    """Raise GateError where something is at fault."""
    faults = [one.topic for one in found if one.status == "fault"]
    if faults:
        raise GateError(f"{len(faults)} of {len(found)} looks found a fault: {', '.join(faults)}")
