"""What is compared before a training, tried at its first step, and held against it at its end."""
