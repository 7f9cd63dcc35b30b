"""Batch scripts for SLURM: what a site is like, the scripts' text, submitting, asking for states."""
