"""What runs a variant in a process of its own."""
