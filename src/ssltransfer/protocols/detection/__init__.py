"""Shared parts of Fast and Faster R-CNN."""
