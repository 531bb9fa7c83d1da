"""What a user can get wrong, said in one message: what, received, allowed, next step.

Library code raises these; only the command line turns them into exit codes:
0 done, 1 the work ran and a gate failed, 2 the input was wrong.
"""

from __future__ import annotations


class KotuneError(Exception):
    """A mistake of the input, told without a traceback; ``exit_code`` is 2."""

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        received: object = None,
        allowed: object = None,
        next_step: str | None = None,
    ) -> None:
        self.what = what
        self.received = received
        self.allowed = allowed
        self.next_step = next_step
        lines = [what]
        if received is not None:
            lines.append(f"  received: {received}")
        if allowed is not None:
            lines.append(f"  allowed:  {allowed}")
        if next_step is not None:
            lines.append(f"  try:      {next_step}")
        super().__init__("\n".join(lines))


class RecipeError(KotuneError):
    """A recipe or an override that does not describe a job."""


class DataError(KotuneError):
    """A corpus that is not the table the recipe describes."""


class ModelError(KotuneError):
    """A base model that cannot be loaded or does not fit the recipe."""


class FolderError(KotuneError):
    """A run, artifact or report folder that is missing, foreign or damaged."""


class TrainingError(KotuneError):
    """A training that ran and came to nothing, such as one that diverged; ``exit_code`` is 1."""

    exit_code = 1


class GateError(KotuneError):
    """The work ran, and a threshold was crossed; ``exit_code`` is 1."""

    exit_code = 1
