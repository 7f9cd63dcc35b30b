"""Measurements of the package's own speed."""
