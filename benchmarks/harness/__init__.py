"""How rows are run, timed and shown."""
