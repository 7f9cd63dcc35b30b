"""Asynchronous and synchronous SGD on a cluster: a parameter server over MPI beside Horovod."""

__version__ = "0.1.0"
