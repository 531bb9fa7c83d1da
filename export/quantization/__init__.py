"""Files in other precisions: candidates, search, and one module a way of quantising."""
