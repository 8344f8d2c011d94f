"""Student methods, one module per method."""
