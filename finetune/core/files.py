"""Whole files or none: write to a temporary name, rename; hash on reading."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.core.errors import FolderError
from finetune.core.seal import sha256_file

__all__ = ["publish_folder", "read_json", "sha256_file", "write_json", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text by rename, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def write_json(path: Path, schema: str, content: dict[str, Any]) -> None:
    """Write ``content`` with its ``schema`` version first; NaN is refused."""
    body = {"schema": schema, **content}
    text = json.dumps(body, ensure_ascii=False, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path, schema: str | Sequence[str]) -> dict[str, Any]:
    """The content of a JSON file of this ``schema``, or one of these; FolderError otherwise."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise FolderError(f"{path.name} is missing", received=path.parent) from fault
    except (OSError, ValueError, RecursionError) as fault:
        raise FolderError(f"{path} is not readable JSON", received=fault) from fault
    found = content.get("schema") if isinstance(content, dict) else None
    known = (schema,) if isinstance(schema, str) else tuple(schema)
    if found not in known:
        raise FolderError(
            f"{path} is of another kind or version", received=found, allowed=", ".join(known)
        )
    return content


@contextmanager
def publish_folder(target: Path, workplace: Path | None = None) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place when the block succeeds.

    Anything at ``target`` is replaced; on an exception the temporary folder is removed
    and ``target`` is as it was. ``workplace`` is where the temporary folders are made; it has
    to be on the same file system.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    place = workplace or target.parent
    temporary = Path(tempfile.mkdtemp(dir=place, prefix=f".{target.name}."))
    temporary.chmod(0o755)
    try:
        yield temporary
        replaced = None
        if target.exists():
            replaced = Path(tempfile.mkdtemp(dir=place, prefix=f".{target.name}.old."))
            os.replace(target, replaced / target.name)
        os.replace(temporary, target)
        if replaced is not None:
            shutil.rmtree(replaced)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
