"""A child process that answers over its pipe: the parent's end, and the child's own.

Messages are JSON lines: ``{"do": command, …}`` goes to the child, ``{"ok": {…}}`` or
``{"error": "…"}`` comes back. The child's standard output belongs to the pipe; whatever a library
prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

import psutil

from finetune.core.processes import end_with_parent, package_environment

Message = dict[str, Any]
Commands = dict[str, Callable[[Any, Message], Message]]
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
STOP_WITHIN_S = 5.0


class WorkerFailed(Exception):
    """A worker raised, died or fell silent; the reason in one line."""


class WorkerProcess:
    """A fresh Python process running ``module``, asleep whenever it is not asked.

    A sleeping worker is stopped by signal: runtimes keep spinning threads, which would take the
    cores from the worker that is being measured.
    """

    def __init__(self, module: str, threads: int | None, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        # -P: no file of the working directory shadows a package. A session of its own: Ctrl-C
        # reaches the parent alone, which then ends its workers, and priority holds for them alone.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=worker_environment(threads),
            start_new_session=True,
            text=True,
            encoding="utf-8",
        )
        self._timed_out = False

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def send(self, command: str, **content: Any) -> None:
        """Ask without waiting; ``receive`` fetches the answer. Raises WorkerFailed."""
        try:
            self._process.stdin.write(json.dumps({"do": command, **content}) + "\n")
            self._process.stdin.flush()
        except OSError as fault:
            raise WorkerFailed(self._reason()) from fault

    def receive(self) -> dict[str, Any]:
        """The answer to the last ``send``; raises WorkerFailed."""
        timer = threading.Timer(self.timeout_s, self._give_up)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            raise WorkerFailed(self._reason())
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer["ok"]

    def ask(self, command: str, **content: Any) -> dict[str, Any]:
        """Wake the worker, send, wait for the answer, put it to sleep; raises WorkerFailed."""
        self.wake()
        self.send(command, **content)
        answer = self.receive()
        self.sleep()
        return answer

    def sleep(self) -> None:
        """Stop every thread of the worker, and see that they have stopped."""
        self._signal("suspend")
        deadline = time.monotonic() + STOP_WITHIN_S
        while not self._has_stopped() and time.monotonic() < deadline:
            time.sleep(0.001)

    def wake(self) -> None:
        """Let it run on."""
        self._signal("resume")

    def close(self) -> None:
        """End the process, whatever state it is in."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # an unsent message of a worker that died
                stream.close()

    def _signal(self, name: str) -> None:
        try:
            getattr(psutil.Process(self.pid), name)()
        except psutil.NoSuchProcess as fault:
            raise WorkerFailed(self._reason()) from fault

    def _has_stopped(self) -> bool:
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_RUNNING
        except psutil.NoSuchProcess:
            return True

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _reason(self) -> str:
        """Why the process is gone: silence, a signal, or the last line it printed."""
        if self._timed_out:
            return f"no answer within {self.timeout_s:g} s"
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "the process closed its pipe"
        if code == -9:
            return "the process was killed (signal 9); out of memory?"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        last = f": {lines[-1][:300]}" if lines else ""
        return f"the process ended with code {code}{last}"


def worker_environment(threads: int | None) -> dict[str, str]:
    """The package environment, with one number of threads for every library if there is one."""
    if threads is None:
        return package_environment()
    return {
        **package_environment(),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **{name: str(threads) for name in THREAD_VARIABLES},
    }


class Pipe:
    """The worker's end: messages in, one answer each out, both JSON lines."""

    def __init__(self, requests: TextIO, answers: TextIO, worker: Any, commands: Commands) -> None:
        self._requests, self._answers = requests, answers
        self._worker, self._commands = worker, commands

    def serve(self, until: str | None = None) -> Message | None:
        """Answer messages until ``quit`` or the end of the pipe; an error is told in one line.

        The command ``until`` is not carried out but returned, for whoever serves in its midst.
        """
        for line in self._requests:
            message = json.loads(line)
            if message["do"] == until:
                return message
            if message["do"] == "quit":
                break
            try:
                answer = {"ok": self._commands[message["do"]](self._worker, message)}
            except Exception as fault:  # whatever a runtime raises: this variant failed, no other
                answer = {"error": _one_line(fault)}
            self._write(answer)
        return None

    def answer(self, content: Message) -> None:
        """Answer the command that is being carried out, before its end."""
        self._write({"ok": content})

    def _write(self, answer: Message) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()


def serve_commands(worker: Any, commands: Commands) -> None:
    """In the child: give standard output to the pipe and serve; it is the worker's ``pipe``."""
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with os.fdopen(os.dup(0), "r", encoding="utf-8") as requests:
        worker.pipe = Pipe(requests, answers, worker, commands)
        worker.pipe.serve()


def _one_line(fault: BaseException) -> str:
    words = " ".join(str(fault).split())[:300]
    return f"{type(fault).__name__}: {words}" if words else type(fault).__name__
