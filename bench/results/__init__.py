"""results.json, read and checked."""
