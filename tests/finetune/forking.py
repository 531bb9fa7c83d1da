"""Children forked from a process that has imported PyTorch, alone or as a pair; who starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.core.console import run_app

ROOT = Path(__file__).parent.parent.parent


def run_harness(harness: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a program that forks trainings in ``folder`` prints in its last line, as JSON."""
    done = subprocess.run(
        [sys.executable, harness, folder, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    logs = "".join(path.read_text("utf-8", "replace") for path in folder.glob("*.log"))
    assert done.returncode == 0, done.stderr + logs
    return json.loads(done.stdout.splitlines()[-1])


def fork(work: Callable[[], None], log: Path) -> int:
    """Run ``work`` as the command line would, in a child that writes to ``log``; its id."""
    child = os.fork()
    if child:
        return child
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 70
    try:
        run_app(work)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def wait_for(child: int) -> int:
    """The child's exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_pair(
    work: Callable[[], None], log: Path, until: Callable[[], bool] | None = None
) -> list[int]:
    """Two children as ``torchrun`` would start them; killed once ``until`` is true."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def join(rank: int) -> None:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        os.environ |= {name: str(value) for name, value in names.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        work()

    children = [fork(lambda rank=rank: join(rank), log) for rank in (0, 1)]
    if until is not None:
        patience = time.monotonic() + 300
        while not until() and time.monotonic() < patience:
            time.sleep(0.02)
        for child in children:
            os.kill(child, signal.SIGKILL)
    return [wait_for(child) for child in children]
