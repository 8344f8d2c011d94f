"""What a configuration will cost, and whether its input files are ready."""
