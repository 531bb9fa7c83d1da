"""From a recipe to a run folder."""

import finetune.core.telemetry  # noqa: F401 - before any library
