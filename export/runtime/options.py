"""Options that every ``predict.py`` has, whatever its model reads."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.runtime.answers import check_answers, print_checks


def model_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options of the model; ``folder`` is this file's own by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--precision", help="a key of the manifest's files; default: the fastest")
    parser.add_argument("--provider", default="cpu", help="cpu or cuda; default cpu")
    parser.add_argument(
        "--self-check",
        action="store_true",
        help="compare the answers of every file, or of --precision, with those of the export",
    )
    parser.add_argument("--threads", type=int, help="default: the cores this process may use")
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent)
    return parser


def model_options(options: argparse.Namespace) -> dict[str, Any]:
    """The parsed options as arguments of ``OnnxClassifier`` or ``OnnxTranscriber``."""
    names = ("folder", "precision", "threads", "provider")
    return {name: getattr(options, name) for name in names}


def open_streams() -> None:
    """Write UTF-8 whatever the locale, and nowhere where a stream is closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def as_written(word: str) -> str:
    """An argument as UTF-8, in which it was written, where the locale reads it otherwise."""
    try:
        return os.fsencode(word).decode("utf-8")
    except UnicodeError:
        return word


def tell_fault(fault: Exception) -> int:
    """The one line of a fault, whatever library it is of; 2, since the input was wrong."""
    told = " ".join(str(fault).split())[:500]
    plain = type(fault).__name__ in ("ArtifactError", "TextError", "TextFault", "AudioError")
    print(f"error: {told if plain else f'{type(fault).__name__}: {told}'}", file=sys.stderr)
    return 2


def check_self(kind: Callable[..., Any], options: argparse.Namespace) -> int:
    """``--self-check``: 0 where every file answers as at the export, 1 where one does not."""
    return print_checks(check_answers(kind, **model_options(options)))
