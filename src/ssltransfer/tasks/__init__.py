"""Trainable tasks: pretext tasks, distillation methods and supervised classification."""
