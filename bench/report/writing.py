"""A report folder from its results.json: the same file in, the same bytes out."""

from __future__ import annotations

from pathlib import Path

from bench.results.reading import read_results
from bench.tasks.registry import open_task


def write_report(folder: Path, *, where: str | None = None) -> Path:
    """Write the pages that the results' task has, each by rename; the path of report.html.

    ``where`` asks for the best variant under conditions; without it, the benchmark's own. Raises
    FolderError when results.json is missing, of another schema, or does not hold together.
    """
    folder = Path(folder)
    results = read_results(folder)
    where = where or results.settings.get("where")
    return open_task(results.task).write_pages(folder, results, where)
