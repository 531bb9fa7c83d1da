"""From run and artifact folders to a report folder."""
