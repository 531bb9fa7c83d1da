"""From a run folder to an artifact folder."""
