"""``accelerate launch -m finetune RECIPE [key.sub=value …]``: fine-tuning on several devices."""

from __future__ import annotations

import typer

from finetune.cli import finetune_model
from finetune.core.console import run_app

if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(finetune_model)
    run_app(app)
