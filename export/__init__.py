"""From a run folder to an artifact folder."""

import finetune.core.telemetry  # noqa: F401 - before any library
