"""What the command line prints, and how an error becomes an exit code."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import typer
from rich.console import Console
from rich.markup import escape

from finetune.core.errors import KotuneError
from finetune.core.exactness import pin_environment

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def run_app(app: typer.Typer) -> None:
    """Run the app; a KotuneError is one message and its exit code, never a traceback."""
    quiet_libraries()
    sys.stdout.reconfigure(line_buffering=True)  # a log file shows progress as a terminal does
    try:
        pin_environment(too_late="torch" in sys.modules)
        app()
    except KotuneError as fault:
        errors.print(f"[bold red]error[/] {escape(str(fault))}", soft_wrap=True)
        sys.exit(fault.exit_code)
    except KeyboardInterrupt:
        errors.print("interrupted; the same command goes on from what is finished")
        sys.exit(130)


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
    for noisy in ("bitsandbytes", "torch", "kernels"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
