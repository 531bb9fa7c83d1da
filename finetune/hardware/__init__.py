"""What depends on the machine: precision, CPU kernels, packed matrices, memory of the host."""
