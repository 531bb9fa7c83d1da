"""One opened model for all threads of a process, opened anew in a process forked from it.

Shipped inside ``predict.py``: imports the standard library and its two neighbours only.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from export.runtime.manifest import ArtifactError

_OPENED: weakref.WeakSet[SharedSession] = weakref.WeakSet()


class SharedSession:
    """A session that threads share, and that a forked child opens again at its first call.

    A forked child has none of the parent's threads: an inherited ONNX Runtime session computes
    on one core and can crash when it is freed, an OpenVINO one hangs then. Raises ArtifactError
    where the child could not open the same file: CUDA does not survive a fork, and a file that
    has changed since is another model.
    """

    def __init__(self, path: Path, provider: str, open_file: Callable[[], Any]) -> None:
        self._path, self._provider, self._open_file = path, provider, open_file
        self._opening = Lock()
        self._state = _state_of(path)
        self._session = open_file()
        _OPENED.add(self)

    def run(self, names: Sequence[str], feed: dict[str, Any]) -> list[Any]:
        """The named outputs."""
        return self._current().run(names, feed)

    def __getattr__(self, name: str) -> Any:
        """All else that the session beneath has, such as ``get_inputs`` and ``io_binding``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._current(), name)

    def _current(self) -> Any:
        session = self._session
        return self._open_again() if session is None else session

    def _open_again(self) -> Any:
        with self._opening:
            if self._session is None:
                if self._provider != "cpu":
                    raise ArtifactError(
                        f"{self._path} was opened on {self._provider} before this process was "
                        "forked, which it does not survive; open it in each process, or start "
                        'processes with multiprocessing\'s "spawn"'
                    )
                if _state_of(self._path) != self._state:
                    raise ArtifactError(
                        f"{self._path} has changed since it was opened, so this forked process "
                        "cannot go on with it; open the artifact again"
                    )
                self._session = self._open_file()
            return self._session

    def leave_to_the_parent(self) -> None:
        """Forget the parent's session without freeing it, which would wait for its threads."""
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        self._session, self._opening = None, Lock()


def _state_of(path: Path) -> list[tuple[str, int, int]]:
    """What tells a file and those beside it (``.bin``, ``_data``) from another that replaced it."""
    parts = sorted(path.parent.glob(f"{path.name.removesuffix('xml')}*"))
    found = [(part.name, part.stat()) for part in parts]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


def _leave_all_to_the_parent() -> None:
    for session in list(_OPENED):
        session.leave_to_the_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_the_parent)
