"""Trunks, layer taps, reading and writing weights."""
