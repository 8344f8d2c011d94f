"""Evaluation protocols, one module per protocol."""
