"""Start the processes that train and export, from the suite's side."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from finetune.core.processes import package_environment
from finetune.recipes.sections import Recipe

ACCELERATORS = ("nvidia[0-9]*", "kfd", "dxg", "accel")  # device files; a driver forbids forking


class StageProcess:
    """Runs each job in a process of its own, which shares this terminal.

    The processes are forked from one that has imported the libraries and done nothing else: at
    the embedded sizes the imports take as long as the training. Where the machine has an
    accelerator, whose driver a fork would break, or cannot fork, each is a new interpreter.
    """

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._replies: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, recipe: Recipe, artifact: Path | None) -> int:
        """Train and, with ``artifact``, export; or summarise a recipe's finished seeds.

        Returns the exit code (negative: killed by a signal).
        """
        job = {
            "argv": sys.argv,
            "recipe": recipe.model_dump(mode="json", exclude_unset=True),
            "artifact": str(artifact) if artifact else None,
        }
        if self._server is None:
            self._start()
        try:
            self._server.stdin.write(json.dumps(job) + "\n")
            self._server.stdin.flush()
            if self._replies is not None:
                return self._reply()
            code = self._server.wait()
        except BrokenPipeError:  # it died before it read the job
            code = self._server.wait() or 1
        except BaseException:
            self.close()  # the child ends with its standard input, and cleans up
            raise
        self.close()
        return code

    def close(self) -> None:
        """End the process; a job that is running is interrupted and waited for."""
        server, self._server = self._server, None
        replies, self._replies = self._replies, None
        if server is not None:
            with contextlib.suppress(BrokenPipeError):  # a job that nobody will read
                server.stdin.close()
            server.wait()
        if replies is not None:
            os.close(replies)

    def _start(self) -> None:
        arguments, passed = [], ()
        if can_fork():
            self._replies, child_end = os.pipe()
            arguments, passed = [str(child_end)], (child_end,)
        try:
            self._server = subprocess.Popen(
                [sys.executable, "-P", "-m", "bench.suites.stage_process", *arguments],
                stdin=subprocess.PIPE,
                env=package_environment(),
                pass_fds=passed,
                text=True,
                encoding="utf-8",
            )
        finally:
            for end in passed:
                os.close(end)

    def _reply(self) -> int:
        line = b""
        while not line.endswith(b"\n"):
            part = os.read(self._replies, 64)
            if not part:  # the server itself is gone
                code = self._server.wait()
                self.close()
                return code or 1
            line += part
        return int(line)


def can_fork() -> bool:
    """Whether processes may be forked from one with the libraries imported."""
    devices = Path("/dev")
    return sys.platform == "linux" and not any(
        next(devices.glob(name), None) for name in ACCELERATORS
    )
