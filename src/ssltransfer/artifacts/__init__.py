"""Files that stages write for each other: manifest, work directory and lock, index, feature store, labels, metrics.

They are read and written only here. A reader checks the fingerprints of an artifact's inputs.
"""
