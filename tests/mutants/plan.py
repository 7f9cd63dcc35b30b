"""Modules that are tried out, and the quick tests that have to notice a fault in each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_SERVER = (
    "tests/contract/test_reference_server.py",
    "tests/unit/test_server.py",
    "tests/unit/test_server_state.py",
    "tests/contract/test_references.py",
    "tests/unit/test_record_server.py",
)
_SHARED = ("tests/unit/test_shards.py", "tests/contract/test_shared_servers.py")
_MESSAGE = ("tests/unit/test_message.py", "tests/unit/test_shards.py")
_CHUNKS = ("tests/unit/test_passage.py",)
_RULES = (
    "tests/contract/test_reference_server.py",
    "tests/contract/test_references.py",
    "tests/contract/test_theorems.py",
    "tests/contract/test_conformance.py",
)
_CHAIN = ("tests/unit/test_chain.py", "tests/unit/test_rule_graph.py")

TESTS: dict[str, tuple[str, ...]] = {
    "server.accumulator": ("tests/unit/test_accumulator.py", *_SERVER),
    "server.follower": _SHARED,
    "server.header": (*_MESSAGE, *_SERVER),
    "server.leader": _SHARED,
    "server.intake": (*_SERVER, *_CHUNKS),
    "server.ledger": ("tests/unit/test_ledger.py", *_SERVER),
    "server.message": (*_MESSAGE, "tests/unit/test_wire.py", *_SERVER),
    "server.model_state": (*_SERVER, *_CHUNKS),
    "server.orders": _SHARED,
    "server.passage": _CHUNKS,
    "server.precision": ("tests/unit/test_wire.py", "tests/unit/test_config_plan.py"),
    "server.push": ("tests/unit/test_message.py", *_SERVER, *_CHUNKS),
    "server.records": ("tests/unit/test_push_records.py", *_SERVER),
    "server.refusals": ("tests/unit/test_refusals.py", *_SERVER),
    "server.replies": (*_SERVER, *_CHUNKS, "tests/unit/test_wire.py"),
    "server.rounding": ("tests/unit/test_wire.py", "tests/unit/test_passage.py"),
    "server.server": (*_SERVER, *_CHUNKS, "tests/unit/test_wire.py"),
    "server.shard": _SHARED,
    "server.slot": (*_SERVER, "tests/unit/test_wire.py"),
    "server.state": (*_SERVER, "tests/unit/test_groups.py"),
    "server.wire": (
        "tests/unit/test_wire.py",
        "tests/unit/test_message.py",
        "tests/contract/test_wire_laws.py",
    ),
    "rules.adam": _RULES,
    "rules.admission": (*_RULES, "tests/contract/test_named_algorithms.py"),
    "rules.alignment": ("tests/unit/test_pages.py", "tests/unit/test_shards.py", *_CHAIN),
    "rules.algorithms": ("tests/unit/test_config.py", "tests/contract/test_docs.py", *_RULES),
    "rules.block_ops": _CHAIN,
    "rules.blocks": _CHAIN,
    "rules.chain": (*_RULES, "tests/unit/test_server_state.py", *_CHAIN),
    "rules.clipping": _RULES,
    "rules.compatibility": ("tests/contract/test_named_algorithms.py", "tests/unit/test_config.py"),
    "rules.compensation": _RULES,
    "rules.correction": _CHAIN,
    "rules.dana": (*_RULES, "tests/unit/test_server_state.py"),
    "rules.fuse": _CHAIN,
    "rules.gap_aware": _RULES,
    "rules.graph": ("tests/unit/test_rule_graph.py", "tests/unit/test_chain.py"),
    "rules.momentum": (*_RULES, "tests/contract/test_named_algorithms.py"),
    "rules.part": (*_RULES, "tests/unit/test_server_state.py"),
    "rules.rule": (*_RULES, "tests/contract/test_named_algorithms.py"),
    "rules.step_size": (*_RULES, "tests/contract/test_named_algorithms.py"),
    "rules.stretch": (*_RULES, "tests/unit/test_server.py", "tests/unit/test_chain.py"),
    "rules.weight_decay": (*_RULES, "tests/contract/test_named_algorithms.py"),
}
"""Module (below ``mpi_dcasgd``) to its tests, those that notice most first."""


def source_of(module: str) -> Path:
    """The file of a module of ``TESTS``."""
    return REPOSITORY / "mpi_dcasgd" / (module.replace(".", "/") + ".py")


def chosen(patterns: Sequence[str]) -> list[str]:
    """Modules that begin with one of these words; all without any.

    Raises:
        SystemExit: A word fits none.
    """
    for pattern in patterns:
        if not any(module.startswith(pattern) for module in TESTS):
            raise SystemExit(
                f"mutants: no module begins with {pattern}; there are {', '.join(TESTS)}"
            )
    return [one for one in TESTS if not patterns or one.startswith(tuple(patterns))]
