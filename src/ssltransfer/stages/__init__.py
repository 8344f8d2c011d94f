"""Stages of the pipeline. Each is a function of its spec and its input files, and imports no other stage."""
