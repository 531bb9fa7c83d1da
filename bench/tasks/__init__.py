"""Tasks as guests of the one benchmark story."""
