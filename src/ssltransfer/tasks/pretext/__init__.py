"""Pretext tasks, one module per task."""
