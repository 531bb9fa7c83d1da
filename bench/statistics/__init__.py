"""From raw samples to figures with intervals."""
