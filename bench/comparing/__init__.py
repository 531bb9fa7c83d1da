"""Two reports held against each other, and proofs of the benchmark itself."""
