"""What every stage leans on: errors, files on disk, the console, processes, the model hub."""
