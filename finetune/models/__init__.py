"""Base models: where they come from, how they are loaded, quantised to 4 bits and stored."""
