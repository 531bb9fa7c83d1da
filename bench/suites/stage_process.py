"""Train and export in a process that gives its memory back: started by ``StageProcess``.

A job comes as one JSON line on standard input; when that pipe ends, the suite is gone and so is
this process. Called with a file descriptor, it imports the libraries once and forks a child for
each job, whose exit code it writes there; without one it does one job and exits with its code.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.suites.stages import Record, export_key, finetune_key, finish, read_record
from finetune.core.console import quiet_libraries, run_app, say
from finetune.core.errors import GateError
from finetune.recipes.sections import Recipe
from finetune.studies.seeds import write_summary
from finetune.tasks.registry import recipe_kind


def run_stages(job: dict[str, Any]) -> None:
    """Train unless that is done, then export where asked; each stage leaves its record.

    A recipe of several seeds is summarised: its runs are jobs of their own, and finished. A
    crossed export gate is recorded, told and raised as GateError.
    """
    recipe = recipe_kind(job["recipe"]).model_validate(job["recipe"])
    if recipe.seeds:
        write_summary(recipe, report=_report)
        return
    if job["artifact"] is not None:  # asked for: what cannot be exported is not trained
        recipe = recipe.model_copy(update={"export": recipe.export})
    run = train(recipe)
    if job["artifact"] is not None:
        export(recipe, run, Path(job["artifact"]))


def train(recipe: Recipe) -> Record:
    """The finished run, trained now or before."""
    target, key = Path(recipe.folder), finetune_key(recipe)
    done = read_record("finetune", target)
    if done is not None and done.key == key:
        return done
    from finetune.training import finetune

    began = time.perf_counter()
    finetune(recipe, overwrite=True, report=_report)
    return finish("finetune", key, target, target, time.perf_counter() - began)


def export(recipe: Recipe, run: Record, target: Path) -> Record:
    """The artifact of a finished run; raises GateError after recording the failure."""
    from export.artifact.folder import failed_target
    from export.exporting import export_run

    key = export_key(run, recipe)
    settings = recipe.export.model_dump(mode="json")
    overrides = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    began = time.perf_counter()
    try:
        artifact = export_run(run.folder, target, overrides=overrides, report=_report)
    except GateError as fault:
        seconds = time.perf_counter() - began
        finish("export", key, target, failed_target(target), seconds, failure=str(fault))
        raise
    return finish("export", key, target, artifact.folder, time.perf_counter() - began)


def main() -> None:
    """Read jobs, watch the pipe, run; exit code 0, 1 (a gate failed) or 2 (wrong input)."""
    if len(sys.argv) == 1:
        _run(sys.stdin.readline())
    else:
        serve(int(sys.argv[1]))


def serve(reply: int) -> None:
    """Fork a child for each job, and write its exit code and a line end to ``reply``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child answers it
    quiet_libraries()
    for libraries in ("finetune.training", "export.exporting"):
        importlib.import_module(libraries)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.close(reply)
            _run(line)
            return
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(BrokenPipeError):  # the suite is gone, and so is the next line
            os.write(reply, f"{code}\n".encode())


def _run(line: str) -> None:
    job = json.loads(line)
    sys.argv = job["argv"]  # what provenance records as the command
    threading.Thread(target=_leave_with_suite, daemon=True).start()
    run_app(lambda: run_stages(job))


def _leave_with_suite() -> None:
    while os.read(0, 4096):
        pass
    _thread.interrupt_main()


def _report(line: str) -> None:
    from rich.markup import escape

    say(f"  {escape(line)}")


if __name__ == "__main__":
    main()
