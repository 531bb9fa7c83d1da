"""What the command line prints, and how an error becomes an exit code."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from finetune.core.errors import KotuneError
from finetune.core.exactness import pin_environment
from finetune.core.surroundings import end_in_order, forget_strays, settle_surroundings

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
INTERRUPTED = 130  # the shell's own code of a program that SIGINT ended


def run_app(app: typer.Typer) -> None:
    """Run the app; a KotuneError is one message and its exit code, never a traceback."""
    settle_surroundings()
    end_in_order()
    forget_strays()
    quiet_libraries()
    try:
        pin_environment(too_late="torch" in sys.modules)
        app()
    except KotuneError as fault:
        errors.print(f"[bold red]error[/] {escape(str(fault))}", soft_wrap=True)
        sys.exit(fault.exit_code)
    except KeyboardInterrupt as fault:
        _tell_interruption(fault)
        sys.exit(INTERRUPTED)
    except SystemExit as fault:
        cause = fault.__context__ and fault.__context__.__cause__
        if isinstance(cause, KeyboardInterrupt):  # Typer turns it into an exit without a word
            _tell_interruption(cause)
        raise
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except Exception as fault:
        if os.environ.get("KOTUNE_VERBOSE"):
            raise
        errors.print(f"[bold red]error[/] {escape(describe_fault(fault))}", soft_wrap=True)
        sys.exit(KotuneError.exit_code)


def describe_fault(fault: Exception) -> str:
    """One message for what no door has told: the system's own faults plainly, others as ours."""
    told = (str(fault).splitlines() or [""])[0][:300]
    if isinstance(fault, MemoryError):
        return "the memory is used up\n  try:      a smaller batch, shorter texts, or more memory"
    if isinstance(fault, OSError) and fault.strerror:
        place = f"\n  received: {fault.filename}" if fault.filename else ""
        return f"the system refuses: {fault.strerror}{place}"
    return (
        f"something came up that kotune has no words for: {type(fault).__name__}: {told}\n"
        "  try:      KOTUNE_VERBOSE=1 shows where; the input may be damaged, else please report it"
    )


@contextmanager
def told_when_interrupted(words: Callable[[], str]) -> Iterator[None]:
    """What is said after Ctrl-C within, where "the same command goes on" is not the truth."""
    try:
        yield
    except KeyboardInterrupt as fault:
        raise KeyboardInterrupt(words()) from fault


def _tell_interruption(fault: KeyboardInterrupt) -> None:
    told = str(fault) or "the same command goes on from what is finished"
    errors.print(f"interrupted; {escape(told)}", soft_wrap=True)


def say(text: str) -> None:
    """One line for the reader, on standard output."""
    console.print(text, soft_wrap=True)


def tell(text: str) -> None:
    """One line as it is, square brackets and all: what carries a user's own words."""
    say(escape(text))


def quiet_libraries() -> None:
    """Progress and warnings of the libraries give way to ours; set KOTUNE_VERBOSE to see them."""
    if os.environ.get("KOTUNE_VERBOSE"):
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # PyTorch makes an empty folder there as it is imported; nothing of ours is compiled
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
    logging.disable(logging.WARNING)  # whatever library it is, and whenever it is imported
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
