"""The fixed points of trace.bin's layout, which its writer and its reader share."""

from __future__ import annotations

import struct

MAGIC = b"DCTRACE\x01"
"""Seven letters, then the version of the layout."""

UPDATES, RESUMED, END = b"UPDT", b"RSM.", b"END."
"""What a block holds: records, or JSON on how the run went on or ended."""

BLOCK_HEAD = struct.Struct("<4sII")
"""Tag, bytes of payload, and count: records in this block, or in the file so far."""

U32 = struct.Struct("<I")
FIELDS = 5
MAX_RECORDS = 4096
MAX_PAYLOAD = MAX_RECORDS * FIELDS * 10
"""No varint of 64 bits takes more than ten bytes."""
