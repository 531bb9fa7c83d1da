"""Tasks as guests of the one export story."""
