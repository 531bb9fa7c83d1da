"""Commands of the first stage: recipes, fine-tuning, prediction."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.core.console import say, tell
from finetune.core.errors import RecipeError
from finetune.planning.command import plan_recipe
from finetune.studies.command import sweep_command

if TYPE_CHECKING:
    from finetune.recipes.speech import SpeechRecipe

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.sub=value, e.g. training.learning_rate=1e-4")
]


def register(app: typer.Typer) -> None:
    """Add this stage's commands to the front door."""
    app.command("ls")(list_recipes)
    app.command("show")(show_recipe)
    app.command("cp")(copy_recipe)
    app.command("methods")(list_methods)
    app.command("finetune")(finetune_model)
    app.command("sweep")(sweep_command)
    app.command("pretrain")(pretrain_model)
    app.command("plan")(plan_recipe)


def list_recipes() -> None:
    """List the recipes that come with kotune."""
    from finetune.recipes.files import packaged_recipes

    for name, path in packaged_recipes().items():
        comments = [
            line[1:].strip() for line in path.read_text("utf-8").splitlines() if line[:1] == "#"
        ]
        say(f"[bold]{name:<34}[/] {comments[1] if len(comments) > 1 else ''}")


def show_recipe(recipe: str) -> None:
    """Print a recipe as it is written, comments included."""
    from finetune.recipes.files import find_recipe

    typer.echo(find_recipe(recipe).read_text(encoding="utf-8"), nl=False)


def copy_recipe(recipe: str, file: Path) -> None:
    """Copy a recipe to FILE, to be edited."""
    from finetune.recipes.files import find_recipe

    source = find_recipe(recipe)
    if file.exists():
        raise RecipeError(
            "the file exists already", received=file, next_step=f"another name, or rm {file}"
        )
    shutil.copyfile(source, file)
    say(f"{file}")


def finetune_model(
    recipe: str,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a finished run.")] = False,
    launch: Annotated[
        int | None, typer.Option(help="Train in so many processes, one for each device.", min=2)
    ] = None,
) -> None:
    """Fine-tune as RECIPE says: a run folder, or one per seed. Cut off, the command goes on."""
    from finetune.core.processes import (
        divide_batch,
        is_main_process,
        launch_finetune,
        process_count,
    )
    from finetune.models.source import resolve_base
    from finetune.recipes.files import dump_recipe, find_recipe, load_recipe, read_yaml
    from finetune.recipes.kinds import SPEECH, recipe_kind
    from finetune.studies.seeds import finetune_seeds, refuse_several_processes

    kind = recipe_kind(read_yaml(find_recipe(recipe)))
    resolved = load_recipe(kind, recipe, overrides or ())
    if resolved.task == SPEECH:
        _finetune_speech(resolved, overwrite=overwrite, launch=launch)
        return
    if resolved.seeds is not None:
        refuse_several_processes(resolved, launch or process_count())
    if launch is None and is_main_process():
        typer.echo(dump_recipe(resolved))
    resolve_base(  # before PyTorch is loaded, so that a wrong model is told at once
        resolved.model.source,
        resolved.model.revision,
        random_weights=resolved.model.random_weights,
    )
    if launch is not None:
        divide_batch(resolved.training.batch_size, launch)
        flags = ["--overwrite"] if overwrite else []
        raise typer.Exit(launch_finetune([recipe, *(overrides or ()), *flags], launch))
    if resolved.seeds is not None:
        finetune_seeds(resolved, overwrite=overwrite, report=tell)
        return
    from finetune.training import finetune

    finetune(resolved, overwrite=overwrite, report=tell)


def list_methods() -> None:
    """List the training methods: the values of adapter.method."""
    from finetune.recipes.methods import METHODS

    for name, method in METHODS.items():
        say(f"[bold]{name:<8}[/] {method.description} ({method.source})")


def _finetune_speech(recipe: SpeechRecipe, *, overwrite: bool, launch: int | None) -> None:
    from finetune.recipes.files import dump_recipe

    if launch is not None:
        raise RecipeError("speech is trained in one process", received=f"--launch {launch}")
    typer.echo(dump_recipe(recipe))
    from finetune.tasks.speech.task import finetune_speech

    finetune_speech(recipe, overwrite=overwrite, report=tell)


def pretrain_model(
    recipe: str,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a finished model.")] = False,
    embed: Annotated[
        Path | None, typer.Option(help="Also write a float16 copy here; trains nothing twice.")
    ] = None,
) -> None:
    """Pretrain an encoder on plain text; interrupted, the same command goes on."""
    from finetune.recipes.files import dump_recipe, load_recipe
    from finetune.recipes.text import PretrainRecipe

    resolved = load_recipe(PretrainRecipe, recipe, overrides or ())
    from finetune.tasks.pretraining.folder import embed_model, is_pretrained

    target = Path(resolved.folder)
    if overwrite or embed is None or not is_pretrained(target):
        typer.echo(dump_recipe(resolved))
        from finetune.tasks.pretraining.task import pretrain

        pretrain(resolved, overwrite=overwrite, report=tell)
    if embed is not None:
        say(f"float16 copy {embed_model(target, embed)}")
