"""Options that every ``predict.py`` has, whatever its model reads."""

from __future__ import annotations

import argparse
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


def check_self(kind: Callable[..., Any], options: argparse.Namespace) -> int:
    """``--self-check``: 0 where every file answers as at the export, 1 where one does not."""
    return print_checks(check_answers(kind, **model_options(options)))
