"""What Typer leaves to do: ``--version``, and arguments that are texts and begin with a dash."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

OPTION = re.compile(r"-[A-Za-z]|--[a-z][a-z0-9-]*(=.*)?", re.DOTALL)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from finetune.core.provenance import package_version

        typer.echo(f"kotune {package_version('kotune')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="print it")
]


def front_door(version: Version = False) -> None:
    """Takes ``--version``; everything else is a command's."""


class TextsCommand(TyperCommand):
    """A command whose arguments are a user's own texts: one that begins with a dash is no option.

    What looks like an option and is none, ``--jsn`` or ``-x``, is still an error.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set the texts behind a ``--`` where one begins with a dash."""
        takes_value = {
            name: not getattr(one, "is_flag", False) and one.param_type_name == "option"
            for one in self.get_params(ctx)
            for name in one.opts
            if name.startswith("-")
        }
        return super().parse_args(ctx, separate_texts(args, takes_value))


def separate_texts(words: Sequence[str], takes_value: Mapping[str, bool]) -> list[str]:
    """Options first, then ``--`` and all else, where a text begins with a dash."""
    options, texts, waiting = [], [], False
    for place, word in enumerate(words):
        if word == "--" and not waiting:
            texts += words[place + 1 :]
            break
        name, equals, _ = word.partition("=")
        if waiting or name in takes_value or OPTION.fullmatch(word):
            options.append(word)
            waiting = not waiting and not equals and takes_value.get(name, False)
        else:
            texts.append(word)
    return [*options, "--", *texts] if any(one.startswith("-") for one in texts) else list(words)
