"""Backbones, layer taps, reading and writing weights."""
