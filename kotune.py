"""The front door: one command line, subcommands only, no logic.

Our packages have generic names, and ``python -m kotune`` puts the working folder before all else on
Python's path: a ``bench.py`` or ``configs.py`` that lies there would be imported instead. So the
folder is taken off first, our own is put before a PYTHONPATH that holds such a file, and what
Python would import is checked to be ours.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

ROOT = os.path.dirname(os.path.realpath(__file__))
PACKAGES = ("bench", "configs", "export", "finetune")


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

    run_app(app)


leave_working_folder()
if foreign_packages():
    sys.path.insert(0, ROOT)
if foreign := foreign_packages():
    print(
        f"error kotune's own packages are hidden by others of the same name\n"
        f"  received: {', '.join(foreign)}\n"
        f"  try:      another name for them",
        file=sys.stderr,
    )
    sys.exit(2)
app = build_app()

if __name__ == "__main__":
    main()
