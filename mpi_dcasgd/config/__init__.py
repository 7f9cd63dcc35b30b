"""Job files and study files, and the checked jobs that they describe."""
