"""One process at a time on an output: the second is told who holds it.

A lock of the system's (flock) on a hidden file beside the output, which ends with its process,
however that ends. filelock leaves its file behind and empties it before it has the lock, so that
it could not say whose it is.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.core.errors import FolderError

try:
    import fcntl
except ImportError:  # Windows: two processes are told apart by nothing there
    fcntl = None

_HELD: set[Path] = set()


@contextmanager
def lock_output(target: Path) -> Iterator[None]:
    """Hold ``target`` for this process; FolderError names the process that holds it already.

    Within one process it may be held again. Where the file system has no locks, nothing is held.
    """
    path = target.resolve().parent / f".{target.name}.lock"
    if fcntl is None or path in _HELD:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _take(path, target)
    except OSError as fault:
        raise FolderError(
            "the output cannot be written",
            received=f"{target}: {fault.strerror or fault}",
            allowed="a folder that can be written to",
        ) from fault
    if handle is None:
        yield
        return
    _HELD.add(path)
    try:
        yield
    finally:
        _HELD.discard(path)
        path.unlink(missing_ok=True)  # while it is held, so that nobody takes what goes away
        os.close(handle)


def _take(path: Path, target: Path) -> int | None:
    """An open file that is locked and still the one of that name; None where there are no locks."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            owner = _read_owner(handle)
            os.close(handle)
            raise FolderError(
                "another process works on this output",
                received=f"{target}, held by {owner}",
                next_step="wait until it has ended, or name another output",
            ) from fault
        except OSError:
            os.close(handle)
            return None
        try:
            same = os.stat(path).st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            same = False
        if same:
            told = json.dumps({"pid": os.getpid(), "host": platform.node()})
            os.truncate(handle, 0)
            os.pwrite(handle, told.encode(), 0)
            return handle
        os.close(handle)  # of an owner that has just gone


def _read_owner(handle: int) -> str:
    try:
        told = json.loads(os.pread(handle, 4096, 0))
        return f"process {told['pid']} on {told['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has not said who it is"
