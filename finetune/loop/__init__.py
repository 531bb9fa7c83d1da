"""The training loop: Trainer driven to its end, checkpoints, ledger, progress, interruption."""
