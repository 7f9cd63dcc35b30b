"""From a job file to a checked job, and from a study file to many of them."""
