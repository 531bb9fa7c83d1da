"""Masked language modelling on plain texts."""
