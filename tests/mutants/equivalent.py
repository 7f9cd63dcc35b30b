"""Faults that change nothing that could be noticed, and why."""

from __future__ import annotations

from tests.mutants.mutations import Mutation

_BY_PLACE = "words of the header are read and written by their place, and no others are"
_IN_BLOCKS = "each element is converted by itself, in blocks of whatever length"
_IN_TIME = "the numbers are the same, and only a GPU would be waited for"
_ONLY_COUNTED = "parts are asked with it how many numbers they have, and not which"
_SAME_CUTS = "vectors of one length are cut at the same places"
_UNREAD = "nobody reads the version before the first pull, which sets it"

EQUIVALENT: dict[tuple[str, str], dict[str, str]] = {
    (
        "rules.gap_aware",
        "unbias = 1.0 / math.sqrt(1.0 - self.decay**facts.version) if facts.version else 1.0",
    ): {"1.0  ->  2.0  (3)": "it multiplies a mean square that is 0 at version 0"},
    ("rules.graph", 'value = float("nan") if sample.dtype.is_floating_point else 0'): {
        "0  ->  1": "a part that reads it is refused, whatever it is",
    },
    ("rules.stretch", "lr=0.1,"): {"0.1  ->  0.05": _ONLY_COUNTED},
    ("rules.stretch", "lr_max=0.1,"): {"0.1  ->  0.05": _ONLY_COUNTED},
    ("rules.stretch", "staleness=0,"): {"0  ->  1": _ONLY_COUNTED},
    ("rules.stretch", "version=0,"): {"0  ->  1": _ONLY_COUNTED},
    ("rules.stretch", "worker=0,"): {"0  ->  1": _ONLY_COUNTED},
    ("rules.stretch", "grad_norm=1.0,"): {"1.0  ->  2.0": _ONLY_COUNTED},
    ("server.ledger", "held.clear()"): {
        "held.clear()  ->  (nothing)": "nobody holds a ticket of a ledger that takes over",
    },
    ("server.ledger", "self._dropped_by.clear()"): {
        "self._dropped_by.clear()  ->  (nothing)": "likewise: it is new, and nothing was dropped",
    },
    (
        "server.message",
        "words = (HEADER_BYTES + (size * dtype.itemsize if behind else 0)) // 4",
    ): {"0  ->  1": "bytes are rounded down to words"},
    ("server.message", "header = self._storage.numpy()[: HEADER_BYTES // 4]"): {
        "HEADER_BYTES // 4  ->  HEADER_BYTES * 4": _BY_PLACE,
        "HEADER_BYTES // 4  ->  HEADER_BYTES": _BY_PLACE,
    },
    (
        "server.message",
        '_REPLIES = [struct.Struct(f"={3 + count}q") for count in range(MAX_GRANTS + 1)]',
    ): {"1  ->  2": "a reply of so many tickets is refused before it is written or read"},
    ("server.message", "return _FINITE[word] if 0 <= word < len(_FINITE) else None"): {
        "0  ->  1": "word 0 means None, as do words that mean nothing",
    },
    ("server.model_state", "self.renew(snapshot, self.facts(worker, 0, 0.0))"): {
        "self.facts(worker, 0, 0.0)  ->  self.facts(worker, 0.0, 0)": "0 is 0.0",
    },
    ("server.server", 'for slot, its in zip(self.slots, state["slots"], strict=True):'): {
        "True  ->  False": "their numbers have been compared before",
    },
    ("server.server", "self.cuts = tuple(cuts)"): {
        "tuple(cuts)  ->  cuts": "all callers give a tuple, which is here for those that do not",
    },
    (
        "server.shard",
        "grain = _PAGE if layout.num_params >= servers * _MANY_PAGES * _PAGE else ALIGN",
    ): {
        (
            "layout.num_params >= servers * _MANY_PAGES * _PAGE  ->  "
            "layout.num_params > servers * _MANY_PAGES * _PAGE"
        ): "then all shards are of 64 pages, whatever the grain",
    },
    ("server.slot", "version: int = -1"): {"-1  ->  1": _UNREAD, "1  ->  2": _UNREAD},
    ("server.wire", "_BLOCK = 1 << 17"): {"1  ->  2": _IN_BLOCKS, "17  ->  18": _IN_BLOCKS},
    ("server.wire", 'self._header = self._raw[: HEADER_BYTES // 4].data.cast("B")'): {
        "HEADER_BYTES // 4  ->  HEADER_BYTES * 4": _BY_PLACE,
        "HEADER_BYTES // 4  ->  HEADER_BYTES": _BY_PLACE,
    },
    (
        "server.wire",
        "self.narrow.copy_(numbers.mul(scale).to(self.narrow.dtype), non_blocking=True)",
    ): {"True  ->  False": _IN_TIME},
    ("server.wire", 'if source.device.type != "cpu":  # half of the bytes on that way, too'): {
        "source.device.type != \"cpu\"  ->  source.device.type == 'cpu'": _IN_BLOCKS,
    },
    ("server.wire", 'if target.device.type != "cpu":'): {
        "target.device.type != \"cpu\"  ->  target.device.type == 'cpu'": _IN_BLOCKS,
    },
    ("server.wire", "self.stats.copy_(stats, non_blocking=True)"): {"True  ->  False": _IN_TIME},
    ("server.wire", "narrow = narrow.to(target.device, non_blocking=True)"): {
        "True  ->  False": _IN_TIME,
    },
    ("server.wire", "target[self._num_params :].copy_(self.stats, non_blocking=True)"): {
        "True  ->  False": _IN_TIME,
    },
    (
        "server.wire",
        "for few, block in zip(blocks_of(self.narrow), blocks_of(numbers), strict=True):",
    ): {"True  ->  False": _SAME_CUTS},
    (
        "server.wire",
        "for block, few in zip(blocks_of(target), blocks_of(narrow), strict=True):",
    ): {"True  ->  False": _SAME_CUTS},
    ("server.wire", 'whole = vector.device.type != "cpu" or vector.numel() <= _BLOCK'): {
        (
            'vector.device.type != "cpu" or vector.numel() <= _BLOCK  ->  '
            "vector.device.type != 'cpu' and vector.numel() <= _BLOCK"
        ): _IN_BLOCKS,
        "vector.device.type != \"cpu\"  ->  vector.device.type == 'cpu'": _IN_BLOCKS,
        "vector.numel() <= _BLOCK  ->  vector.numel() < _BLOCK": _IN_BLOCKS,
        "vector.numel() <= _BLOCK  ->  vector.numel() > _BLOCK": _IN_BLOCKS,
    },
    ("server.wire", "return (vector,) if whole else split(vector, _BLOCK)"): {
        "whole  ->  not whole": _IN_BLOCKS,
        (
            "(vector,) if whole else split(vector, _BLOCK)  ->  "
            "split(vector, _BLOCK) if whole else (vector,)"
        ): _IN_BLOCKS,
    },
}
"""Module and line to faults that nobody can notice (``Mutation.name``), with the reason."""


def reason_for(module: str, fault: Mutation) -> str | None:
    """Why nobody could notice the fault; None if somebody should."""
    return EQUIVALENT.get((module, fault.text), {}).get(fault.name)
