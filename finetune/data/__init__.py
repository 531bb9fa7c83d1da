"""Readers: reviews, tables, NSMC, recordings and plain texts, from a file to rows of a split."""
