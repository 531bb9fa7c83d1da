"""The front door: kotune as a Python library and as a command line, no logic of its own.

    import kotune

    run = kotune.finetune("finetune/demo-lora", {"training.epochs": 1})
    artifact = kotune.export(run, precisions=["int8-dynamic"])
    report = kotune.benchmark([run, artifact], rounds=5)
    classifier = kotune.load(artifact)
    classifier("영화 정말 재미있어요")  # [{"label": "긍정", "score": …}]

Recipe keys, their values and the folders are those of the command line. ``import kotune`` alone
loads neither PyTorch nor the command line.

Our packages have generic names, and ``python -m kotune`` puts the working folder before all else on
Python's path: a ``bench.py`` or ``configs.py`` that lies there would be imported instead. So the
folder is taken off first, our own is put before a PYTHONPATH that holds such a file, and what
Python would import is checked to be ours.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer
    from pydantic import BaseModel

    from export.artifact.folder import Artifact
    from export.runtime import OnnxClassifier, OnnxTranscriber
    from finetune.core.errors import KotuneError
    from finetune.run_folder import Run

__all__ = ["KotuneError", "Report", "benchmark", "export", "finetune", "load", "main"]

ROOT = os.path.dirname(os.path.realpath(__file__))
PACKAGES = ("bench", "configs", "export", "finetune")
Folder = str | Path
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """A benchmark's folder; ``page`` is its report.html."""

    folder: Path
    page: Path

    @property
    def results(self) -> dict[str, Any]:
        """The raw results, as results.json holds them."""
        return json.loads((self.folder / "results.json").read_text("utf-8"))


def finetune(
    recipe: Folder | Mapping[str, Any] | BaseModel,
    overrides: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    tell: Tell = lambda line: None,
) -> Run:
    """Train what a recipe says: its file, its name, its content as a mapping, or its model.

    ``overrides`` are recipe keys: ``{"training.learning_rate": 1e-4}``. Each line of progress
    goes to ``tell``. An unfinished run goes on where it stopped. A recipe with ``seeds`` makes
    several runs and is refused here: train one seed a call. Raises KotuneError.
    """
    from finetune.core.errors import RecipeError
    from finetune.run_folder import open_run

    resolved = _resolve_recipe(recipe, overrides or {})
    if resolved.seeds is not None:
        raise RecipeError(
            "a recipe with `seeds` makes several runs",
            received=f"seeds={resolved.seeds}",
            next_step='kotune.finetune(recipe, {"seeds": None, "seed": …}) for each of them',
        )
    from finetune.training import finetune as train

    return open_run(train(resolved, overwrite=overwrite, report=tell))


def export(
    run: Folder | Run,
    target: Folder | None = None,
    *,
    tell: Tell = lambda line: None,
    **settings: Any,
) -> Artifact:
    """Merge, export, quantise and check a run; the artifact at ``target`` (artifacts/NAME).

    ``settings`` are keys of the recipe's export section: ``precisions=["int4"]``, ``opset=18``.
    Raises GateError where a check fails, KotuneError for wrong input.
    """
    from export.exporting import export_run

    return export_run(_folder_of(run), target, overrides=_as_words(settings), report=tell)


def benchmark(
    folders: Sequence[Folder | Run | Artifact],
    output: Folder | None = None,
    *,
    tell: Tell = lambda line: None,
    **settings: Any,
) -> Report:
    """Measure runs and artifacts against each other; a report at ``output`` (reports/NAMES).

    ``settings`` are keys of a suite's bench section: ``rounds=5``, ``variants=[…]``. Raises
    GateError where nothing could be measured, KotuneError for wrong input.
    """
    from bench.benchmark import run_benchmark
    from bench.settings import folder_settings
    from bench.tasks.registry import task_of_folders

    places = [_folder_of(folder) for folder in folders]
    section = folder_settings(_as_words(settings), task_of_folders(places).settings)
    target = Path("reports") / "-".join(place.name for place in places)
    page = run_benchmark(places, section, target if output is None else output, report=tell)
    return Report(page.parent, page)


def load(
    artifact: Folder | Artifact, precision: str | None = None, **options: Any
) -> OnnxClassifier | OnnxTranscriber:
    """The runtime of an artifact, by its task: a classifier of texts or a transcriber.

    ``options`` are its own: ``threads``, ``provider``, ``verify``. Raises ArtifactError.
    """
    from export.runtime import OnnxClassifier, OnnxTranscriber
    from export.runtime.manifest import read_manifest
    from finetune.tasks.registry import SPEECH

    folder = _folder_of(artifact)
    task = read_manifest(folder).task
    opened = OnnxTranscriber if task == SPEECH else OnnxClassifier
    return opened(folder, precision, **options)


def _resolve_recipe(
    recipe: Folder | Mapping[str, Any] | BaseModel, overrides: Mapping[str, Any]
) -> Any:
    from pydantic import BaseModel

    from finetune.recipes.files import apply_overrides, check_recipe, find_recipe, read_yaml
    from finetune.tasks.registry import recipe_kind

    if isinstance(recipe, BaseModel):
        content: Mapping[str, Any] = recipe.model_dump(mode="json", exclude_unset=True)
    elif isinstance(recipe, Mapping):
        content = recipe
    else:
        content = read_yaml(find_recipe(str(recipe)))
    origin = str(recipe) if isinstance(recipe, str | Path) else "recipe"
    changed = apply_overrides(dict(content), _as_words(overrides))
    return check_recipe(recipe_kind(changed), changed, origin)


def _as_words(settings: Mapping[str, Any]) -> list[str]:
    """Keys and values as the command line has them; JSON is YAML."""
    return [
        f"{key}={json.dumps(value, ensure_ascii=False, default=str)}"
        for key, value in settings.items()
    ]


def _folder_of(place: Folder | Run | Artifact | Report) -> Path:
    return Path(getattr(place, "folder", place))


def build_app() -> typer.Typer:
    """The command line with the commands of every stage."""
    import typer

    from bench.cli import register as register_bench
    from export.cli import register as register_export
    from finetune.cli import register as register_finetune
    from finetune.core.command_line import front_door

    app = typer.Typer(
        name="kotune",
        help="Fine-tune an encoder with LoRA or QLoRA, export it to ONNX, prove what it gained.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(front_door)
    register_finetune(app)
    register_export(app)
    register_bench(app)
    return app


def leave_working_folder() -> None:
    """Take the working folder off Python's path, where ``python -m`` has put it."""
    here = os.getcwd()
    if not sys.flags.safe_path and sys.path[:1] in ([""], [here]) and here != ROOT:
        del sys.path[0]


def foreign_packages() -> list[str]:
    """What Python would import by our packages' names and is not ours, or has done."""
    found = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        place = spec.origin if spec and spec.origin else None
        if place is None or os.path.dirname(os.path.realpath(place)) != os.path.join(ROOT, name):
            found.append(place or f"no {name}")
    return found


def main() -> None:
    """Run the command line; the exit code is 0, 1 (a gate failed) or 2 (wrong input)."""
    from finetune.core.console import run_app

    run_app(build_app())


def __getattr__(name: str) -> Any:
    """``KotuneError`` and the command line's ``app``, imported when they are asked for."""
    if name == "KotuneError":
        from finetune.core.errors import KotuneError

        return KotuneError
    if name == "app":
        return globals().setdefault("app", build_app())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    leave_working_folder()
if foreign_packages():
    sys.path.insert(0, ROOT)
if foreign := foreign_packages():
    told = (
        "kotune's own packages are hidden by others of the same name\n"
        f"  received: {', '.join(foreign)}\n"
        "  try:      another name for them"
    )
    if __name__ != "__main__" and not sys.argv[0].endswith("kotune"):
        raise ImportError(told)
    print(f"error {told}", file=sys.stderr)
    sys.exit(2)

importlib.import_module("finetune.core.telemetry")  # before a caller imports onnxruntime

if __name__ == "__main__":
    main()
