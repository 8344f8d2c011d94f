"""Benchmarks: each module here is a row; `python -m benchmarks` runs them (docs/performance.md)."""
