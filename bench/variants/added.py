"""Runtimes of text classification that plugins add to the benchmark, measured on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.core.plugins import Registry

GROUP = "kotune.runtimes"
Answer = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True)
class Runtime:
    """What runs a file of an artifact: a variant ``<method>-NAME-<precision>`` for each of them.

    ``load`` takes the artifact's folder, the file's key and a number of threads, and gives a
    function from texts to class ids. ``precisions`` are the keys of files it can run; those that
    an artifact lacks are left out. ``description`` is the report's.
    """

    load: Callable[[Path, str, int], Answer]
    description: str
    precisions: tuple[str, ...] = ("fp32",)


RUNTIMES: Registry[Runtime] = Registry(GROUP, {}, Runtime)
