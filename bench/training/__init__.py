"""Training speed and memory, and the planner held against them."""
