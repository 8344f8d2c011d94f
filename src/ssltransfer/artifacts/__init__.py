"""Files exchanged between stages: manifest, work directory and lock, index, feature store, labels, metrics.

Only this package reads and writes them. A reader checks the fingerprints of an artifact's inputs.
"""
