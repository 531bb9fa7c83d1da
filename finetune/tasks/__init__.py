"""Tasks as guests of the one training story, a folder each."""
