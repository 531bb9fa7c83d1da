"""Readers: reviews, tables, NSMC, recordings and plain texts, from a file to rows of a split."""

IGNORED = -100  # the label that a loss passes over: PyTorch's default ignore_index
