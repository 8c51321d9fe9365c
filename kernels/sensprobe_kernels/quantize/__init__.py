"""How a number is stored: flags, scales and rounding, on the CPU and in Triton."""
