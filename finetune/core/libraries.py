"""Where the two majors of transformers differ, with the hub client and tokenizers of each.

kotune runs on transformers 4.57 with huggingface_hub 0.x and on transformers 5 with
huggingface_hub 1.x; the rest of the house asks here instead of asking for versions.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib.util import find_spec
from typing import Any

from finetune.core.provenance import package_version

LARGEST_SHARE = 1 - 2**-53  # transformers 5 takes a warm-up of 1.0 for one step


def transformers_major() -> int:
    """4 or 5, without importing the library."""
    return int(importlib.metadata.version("transformers").partition(".")[0])


def has_optimum() -> bool:
    """Whether Optimum's ONNX export can be imported; nothing of it is imported here.

    ``optimum`` alone, without ``optimum-onnx``, has the folder but not the modules.
    """
    try:
        return find_spec("optimum.exporters.onnx.convert") is not None
    except (ImportError, ValueError):
        return False


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Name → version of those that are installed."""
    return {name: version for name in names if (version := package_version(name))}


def name_versions(versions: Mapping[str, str]) -> str:
    """As a reader is told of them: ``transformers 4.57.6, tokenizers 0.22.2``."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def pin_versions(versions: Mapping[str, str]) -> str:
    """As a command that installs them."""
    return "pip install " + " ".join(f"{name}=={version}" for name, version in versions.items())


def warmup_arguments(steps: int, share: float) -> dict[str, Any]:
    """TrainingArguments' warm-up: ``steps``, or where they are 0 a ``share`` (0 to 1) of all.

    transformers 5 dropped ``warmup_ratio``: ``warmup_steps`` below 1 is the share.
    """
    from transformers import TrainingArguments

    if any(field.name == "warmup_ratio" for field in fields(TrainingArguments)):
        return {"warmup_steps": steps, "warmup_ratio": share}
    return {"warmup_steps": steps or min(share, LARGEST_SHARE)}


def connection_faults() -> tuple[type[Exception], ...]:
    """What a broken connection raises: requests' errors, and httpx' with huggingface_hub 1.x."""
    import requests

    faults: list[type[Exception]] = [requests.RequestException, ConnectionError, TimeoutError]
    if find_spec("httpx") is not None:
        import httpx

        faults.append(httpx.HTTPError)
    return tuple(faults)
