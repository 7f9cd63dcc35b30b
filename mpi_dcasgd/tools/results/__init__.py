"""The studies whose results are in docs/results: how they are run, and how their pages are built.

``python -m mpi_dcasgd.tools.results run NAME`` makes a study's runs and writes its numbers to
``NAME.json``; ``build NAME`` makes the tables and plots of its page from these numbers alone.
"""
