"""A report folder from its results.json: the same file in, the same bytes out."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from bench.results.reading import read_results
from finetune.core.errors import FolderError
from finetune.tasks.registry import SPEECH, TEXT

PAGES = {  # the pages of each task, whose ``write_pages`` makes them
    TEXT: "bench.report.pages.text",
    SPEECH: "bench.report.pages.speech",
}


def write_report(folder: Path, *, where: str | None = None) -> Path:
    """Write the pages that the results' task has, each by rename; the path of report.html.

    ``where`` asks for the best variant under conditions; without it, the benchmark's own. Raises
    FolderError when results.json is missing, of another schema, or does not hold together.
    """
    folder = Path(folder)
    results = read_results(folder)
    if results.task not in PAGES:
        raise FolderError(
            "no report is made of this task", received=results.task, allowed=", ".join(PAGES)
        )
    where = where or results.settings.get("where")
    return import_module(PAGES[results.task]).write_pages(folder, results, where)
