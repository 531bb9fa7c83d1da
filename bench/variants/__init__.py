"""What is compared: the variants of runs and artifacts."""
