"""Processes that load samples for a rank, started so that they are safe beside MPI."""
