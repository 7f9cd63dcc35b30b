"""Simulated and replayed runs: a server and its workers in one process, on a virtual clock."""
