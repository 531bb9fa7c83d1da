"""Packages that a model's files need beyond kotune's own; transformers fails without in any way.

A tokenizer that is stored as SentencePiece or tiktoken only is converted on loading, by packages
that transformers does not require: their absence shows as AttributeError, ImportError or worse.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from finetune.core.errors import ModelError

# Files that hold a tokenizer which has to be converted → what converting needs (import: install).
CONVERTED = {
    "*.model": {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"},
    "*.spm": {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"},
    "*.tiktoken": {"tiktoken": "tiktoken"},
}
READY = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
NAMED = re.compile(
    r"(?:pip install|You need to install|requires the|No module named)\s+'?([\w.-]+)"
)


def explain_tokenizer(fault: Exception, source: str, folder: Path | None) -> ModelError:
    """The error to raise for a tokenizer that did not load from ``folder`` (None: unknown)."""
    missing = sorted({*_named_packages(fault), *_needed_packages(folder)})
    received = f"{source}: {_brief(fault)}"
    if missing:
        return ModelError(
            f"the tokenizer needs {' and '.join(missing)}, which is not installed",
            received=received,
            allowed="a folder with tokenizer.json needs no further package",
            next_step=f"pip install {' '.join(missing)}",
        )
    if folder is not None and not _is_ready(folder) and not _converted_files(folder):
        return ModelError(
            "the model folder has no tokenizer",
            received=received,
            allowed=f"{', '.join(READY)}, or a SentencePiece model",
            next_step="copy the tokenizer's files beside config.json",
        )
    stored = [] if folder is None or _is_ready(folder) else _converted_files(folder)
    return ModelError(
        f"the tokenizer's {stored[0].name} cannot be converted"
        if stored
        else "the tokenizer cannot be loaded",
        received=received,
        next_step="fetch the file again: it may be cut or a pointer of git-lfs" if stored else None,
    )


def tokenizer_folder(source: str | Path, revision: str | None) -> Path | None:
    """Where a folder's or a cached hub id's files lie; None where neither is at hand."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(str(source), "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _needed_packages(folder: Path | None) -> Iterator[str]:
    """What converting the folder's tokenizer needs and this environment lacks."""
    if folder is None or _is_ready(folder):
        return
    for pattern, packages in CONVERTED.items():
        if list(folder.glob(pattern)):
            yield from (name for module, name in packages.items() if not is_installed(module))


def _named_packages(fault: BaseException | None) -> Iterator[str]:
    """Packages that the fault or one of its causes names and this environment lacks."""
    while fault is not None:
        names = [fault.name] if isinstance(fault, ImportError) and fault.name else []
        names += [] if names else NAMED.findall(str(fault))
        for name in names:
            package = name.rstrip(".").partition(".")[0]
            if package and not is_installed(package):
                yield package
        fault = fault.__cause__ or fault.__context__


def _is_ready(folder: Path) -> bool:
    return any((folder / name).is_file() for name in READY)


def _converted_files(folder: Path) -> list[Path]:
    return [path for pattern in CONVERTED for path in sorted(folder.glob(pattern))]


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing more than its parents."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _brief(fault: Exception) -> str:
    first = (str(fault).strip().splitlines() or [""])[0][:200]
    if first and isinstance(fault, OSError | ValueError):
        return first
    return f"{type(fault).__name__}: {first}" if first else type(fault).__name__
