"""Transport of vectors between the server and its workers: in messages, or in shared memory.

``segment`` is memory that two processes map, ``sharing`` finds out which workers can have it.
"""

from __future__ import annotations

from typing import Literal

TransportChoice = Literal["auto", "shared", "messages"]

Transport = Literal["shared", "messages"]
"""What one worker has."""
