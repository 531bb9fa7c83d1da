"""Commands of the first stage: recipes, fine-tuning, prediction."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from finetune.core.console import say, tell
from finetune.core.errors import RecipeError
from finetune.planning.command import plan_recipe
from finetune.studies.command import sweep_command

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.sub=value, e.g. training.learning_rate=1e-4")
]

Verbose = Annotated[
    bool, typer.Option("--verbose", help="Print the whole recipe, defaults included.")
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
    app.command("doctor")(doctor_command)


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
    verbose: Verbose = False,
) -> None:
    """Fine-tune as RECIPE says: a run folder, or one per seed. Cut off, the command goes on."""
    from finetune.tasks.registry import TEXT

    _train(recipe, overrides or (), TEXT, overwrite=overwrite, launch=launch, verbose=verbose)


def list_methods() -> None:
    """List the training methods: the values of adapter.method."""
    from finetune.recipes.methods import METHODS

    for name, method in METHODS.items():
        say(f"[bold]{name:<8}[/] {method.description} ({method.source})")


def pretrain_model(
    recipe: str,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a finished model.")] = False,
    launch: Annotated[
        int | None, typer.Option(help="Train in so many processes, one for each device.", min=2)
    ] = None,
    embed: Annotated[
        Path | None, typer.Option(help="Also write a float16 copy here; trains nothing twice.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Pretrain an encoder on plain text; interrupted, the same command goes on."""
    from finetune.recipes.files import load_recipe
    from finetune.recipes.pretraining import PretrainRecipe
    from finetune.tasks.registry import PRETRAINING

    target = Path(load_recipe(PretrainRecipe, recipe, overrides or ()).folder)
    if embed is None or overwrite or not _is_pretrained(target):
        _train(
            recipe,
            overrides or (),
            PRETRAINING,
            overwrite=overwrite,
            launch=launch,
            verbose=verbose,
        )
    if embed is not None:
        from finetune.tasks.pretraining.folder import embed_model

        say(f"float16 copy {embed_model(target, embed)}")


def _is_pretrained(folder: Path) -> bool:
    from finetune.tasks.pretraining.folder import is_pretrained

    return is_pretrained(folder)


def _train(
    name: str,
    overrides: Sequence[str],
    default_task: str,
    *,
    overwrite: bool,
    launch: int | None,
    verbose: bool,
) -> None:
    """A recipe of any task: in this process, in several, or once for each seed."""
    from finetune.core.processes import is_main_process, launch_finetune, process_count
    from finetune.models.source import resolve_base
    from finetune.recipes.files import (
        apply_overrides,
        check_recipe,
        describe_recipe,
        find_recipe,
        read_yaml,
    )
    from finetune.studies.seeds import finetune_seeds, refuse_several_processes
    from finetune.tasks.registry import recipe_kind

    content = apply_overrides(read_yaml(find_recipe(name)), overrides)
    recipe = check_recipe(recipe_kind(content, default_task), content, name)
    if recipe.seeds is not None:
        refuse_several_processes(recipe, launch or process_count())
    if launch is None and is_main_process():
        typer.echo(describe_recipe(recipe, verbose=verbose))
    if recipe.base_model:  # before PyTorch is loaded, so that a wrong model is told at once
        resolve_base(**recipe.base_model)
    recipe.check_processes(launch or process_count())
    if launch is not None:
        words = [name, *overrides, *([] if "task" in content else [f"task={default_task}"])]
        words += [*(["--overwrite"] if overwrite else []), *(["--verbose"] if verbose else [])]
        raise typer.Exit(launch_finetune(words, launch))
    if recipe.seeds is not None:
        finetune_seeds(recipe, overwrite=overwrite, report=tell)
        return
    from finetune.training import finetune

    finetune(recipe, overwrite=overwrite, report=tell)


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """Look at this machine and its libraries: what works, what does not, what to do about it."""
    import json

    from finetune.doctor import check_findings, examine

    found = examine()
    if as_json:
        typer.echo(json.dumps([one.as_dict() for one in found], ensure_ascii=False))
    for one in () if as_json else found:
        tell(f"{one.status:<8}{one.topic:<16}{one.told}")
        if one.next_step:
            tell(f"{'':<24}try: {one.next_step}")
    check_findings(found)
