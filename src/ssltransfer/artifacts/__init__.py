"""What lies between stages: manifest, work directory and lock, index, feature store, labels, metrics.

Read and written only here; whoever reads an artifact checks the fingerprints of what it was made from.
"""
