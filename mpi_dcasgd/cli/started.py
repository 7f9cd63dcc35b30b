"""When this process began: imported before anything that takes its time."""

from __future__ import annotations

import time

STARTED = time.monotonic()
"""As ``time.monotonic`` has it; the imports that follow make up most of start-up."""
