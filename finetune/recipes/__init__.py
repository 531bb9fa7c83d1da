"""Recipes as frozen models, one module a task; how their files are found, read and overridden."""
