"""What an exported file must pass: accuracy, word errors, stability; its latency."""
