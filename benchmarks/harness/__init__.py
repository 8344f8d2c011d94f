"""Running, timing and presenting benchmarks."""
