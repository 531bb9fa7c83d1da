"""Suites: several stages from one file."""
