"""Memory, steps and time of a training before it begins (`kotune plan`)."""
