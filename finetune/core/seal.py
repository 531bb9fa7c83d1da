"""One seal over a folder: the SHA-256 of every file, which its document holds.

Every door that opens a run or an artifact asks here. A name of the list is one of a file inside
the folder; what is opened stands in the list. Imports the standard library only: it stands inside
an artifact's ``predict.py`` too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def sha256_file(path: Path) -> str:
    """The file's SHA-256, hexadecimal; raises OSError."""
    digest, buffer = hashlib.sha256(), bytearray(1 << 20)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def sha256_content(content: dict[str, Any]) -> str:
    """SHA-256 of a JSON object whatever the order of its keys."""
    text = json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file, links followed, lies in its folder, or in the blobs of a hub cache's."""
    place, home = path.resolve(), folder.resolve()
    homes = [home]
    if (
        home.parent.name == "snapshots"
    ):  # models--owner--name/snapshots/COMMIT, links to ../../blobs
        homes.append(home.parent.parent / "blobs")
    return any(place.is_relative_to(one) for one in homes)


def name_fault(folder: Path, name: object) -> str | None:
    """Why ``name`` is none of a file inside the folder; None where it is one."""
    parts = name.split("/") if isinstance(name, str) else [""]
    if not all(parts) or {".", ".."} & set(parts) or any(sign in name for sign in "\\\0:"):
        return f"{name!r:.200} is no name of a file inside the folder"
    if not is_inside(folder / name, folder):
        return f"{name} leads out of the folder"
    return None


def list_files(folder: Path, parts: Iterable[str] = (".",)) -> list[str]:
    """Names of every file and link under the parts of a folder, with ``/``, sorted."""
    found = [
        path
        for part in parts
        for path in ([folder / part] if (folder / part).is_file() else (folder / part).rglob("*"))
        if path.is_file() or path.is_symlink()
    ]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def seal_files(folder: Path, parts: Iterable[str] = (".",)) -> dict[str, str]:
    """Name → SHA-256 of every file under the parts of a folder."""
    return {name: sha256_file(folder / name) for name in list_files(folder, parts)}


def seal_fault(folder: Path, hashes: Any, names: Iterable[str] | None = None) -> str | None:
    """What does not fit a folder's list of hashes; None where all does.

    ``names`` are the files to look at, all of the list by default; one that is not in it is a
    fault too.
    """
    if not isinstance(hashes, dict):
        return "the list of the files' hashes is no object"
    asked = sorted(hashes if names is None else names, key=str)
    listed = [name for name in asked if name in hashes]
    for name in asked:
        if fault := name_fault(folder, name):
            return fault
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing lets go of the GIL
        found = list(pool.map(lambda name: _digest(folder / name), listed))
    for name, digest in zip(listed, found, strict=True):
        if digest is None:
            return f"{folder / name} is missing or unreadable"
        if digest != hashes[name]:
            return f"{folder / name} was changed after it was written: its SHA-256 is another"
    if unlisted := sorted(set(asked) - set(listed)):
        return f"{folder / unlisted[0]} stands without a hash: nobody vouches for it"
    return None


def _digest(path: Path) -> str | None:
    try:
        return sha256_file(path) if path.is_file() else None
    except OSError:
        return None
