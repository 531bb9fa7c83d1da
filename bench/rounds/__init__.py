"""When something is measured: rounds, blocks, processes, and going on where it stopped."""
