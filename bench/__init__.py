"""From run and artifact folders to a report folder."""

import finetune.core.telemetry  # noqa: F401 - before any library
