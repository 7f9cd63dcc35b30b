"""Batch scripts for SLURM: a site, the scripts' text, submitting, asking for states."""
