"""A run from start to end: the Python API under the command line."""
