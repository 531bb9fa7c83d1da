"""The front door: one command line, subcommands only, no logic."""

from __future__ import annotations

import typer

from bench.cli import register as register_bench
from export.cli import register as register_export
from finetune.cli import register as register_finetune
from finetune.core.console import run_app

app = typer.Typer(
    name="kotune",
    help="Fine-tune an encoder with LoRA or QLoRA, export it to ONNX, prove what it gained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
register_finetune(app)
register_export(app)
register_bench(app)


def main() -> None:
    """Run the command line; the exit code is 0, 1 (a gate failed) or 2 (wrong input)."""
    run_app(app)


if __name__ == "__main__":
    main()
