"""A rule's arithmetic as one pass over memory, compiled or in blocks.

``compiled``: TorchInductor makes one loop of the step, in C++ on the CPU and in Triton on a GPU.
It is given the graph, not the Python function: there are no guards to check before each update
and nothing that could compile again later, whatever the numbers, the workers or the thread count
become. Inductor keeps its results on disk (``TORCHINDUCTOR_CACHE_DIR``), so that a second run
of the same rule on vectors of the same length starts faster.

``blocks``: the same operations as calls of torch or NumPy over blocks that stay in cache
(blocks.py).
``plain`` calls the parts over whole vectors, for comparison.

The first two do the same float operations in the same order, and the compiler may neither
contract nor reorder them. On the CPU they agree bit for bit in everything that IEEE 754 rounds
correctly: + - * / sqrt, comparisons, absolute values. Functions that it does not (exp, log, pow,
tanh) may differ by a few units in the last place, and so may everything on a GPU, where
multiplications and additions are contracted. Where parts are called as they are (``plain``, and
steps that cannot be written down) torch's own square root may be one unit off. A run and its
replay therefore use the same way.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mpi_dcasgd.errors import UserError
from mpi_dcasgd.rules.block_ops import ONE_THREAD, NumpyWriting, TorchWriting, Writing
from mpi_dcasgd.rules.blocks import BLOCK, BlockPass, EagerPass
from mpi_dcasgd.rules.graph import Step, Traced, trace
from mpi_dcasgd.shell import shell_words

Kernel = Literal["compiled", "blocks", "plain"]
Fuse = Literal["auto", "compiled", "blocks", "plain"]
Pass = Callable[..., Any]
"""``run(params, grad, snapshot, numbers, *state)``: writes params, snapshot and state in place."""

WORTH_COMPILING = 1 << 18
"""Elements from which ``auto`` compiles: about ten thousand updates then pay for the start."""

_log = logging.getLogger(__name__)


class Fused(NamedTuple):
    """A pass, which way it runs, and the fewest vectors that it has to read and write."""

    run: Pass
    kernel: Kernel
    vectors_moved: int | None


def fuse(
    step: Step, params: Tensor, num_numbers: int, num_state: int, way: Fuse, block: int = BLOCK
) -> Fused:
    """Make a pass of a step; all compiling happens here.

    Args:
        step: See ``trace.Step``.
        params: A vector like the ones that the pass will get; only its shape, type and device
            are used.
        num_numbers: How many numbers the step takes.
        num_state: How many state vectors.
        way: ``auto`` compiles vectors of ``WORTH_COMPILING`` elements or more.
        block: Elements in a block.

    Returns:
        The pass. Where compiling was asked for and fails, a warning is logged and the pass runs
        in blocks.
    """
    if way == "plain":
        return Fused(EagerPass(step, params.numel()), "plain", None)
    compiled = way == "compiled" or (way == "auto" and params.numel() >= WORTH_COMPILING)
    try:
        traced = trace(step, params, num_numbers, num_state)
    except Exception as error:  # anything at all may come out of a user's part
        if compiled:
            _warn("cannot be written down as elementwise operations, see docs/own-rule.md", error)
        else:
            _log.debug("the update rule cannot be written down: %s", error)
        return Fused(_eager_pass(step, len(params), params.device, block), "blocks", None)
    if compiled and _has_compiler(params.device):
        started = time.perf_counter()
        try:
            run = compile_pass(traced)
            _log.info("compiled the update rule in %.1f s", time.perf_counter() - started)
            return Fused(run, "compiled", traced.vectors_moved)
        except Exception as error:  # the compiler's, and whatever its environment lacks
            _warn("could not be compiled", error)
    return Fused(_block_pass(step, traced, block), "blocks", traced.vectors_moved)


def fuse_all(
    steps: Sequence[tuple[Step, Tensor, int]], num_state: int, way: Fuse, block: int = BLOCK
) -> list[Fused]:
    """Make the passes of steps that follow one another on pieces of one vector, all the same way.

    A step that comes again on a piece of the same length has the same pass: it is compiled once.

    Args:
        steps: Each with its piece of the vector and how many numbers it takes.
        num_state: How many state vectors.
        way: As in ``fuse``; ``auto`` goes by the length of all pieces together.
        block: Elements in a block.
    """
    length = sum(piece.numel() for _, piece, _ in steps)
    if way == "auto":
        way = "compiled" if length >= WORTH_COMPILING else "blocks"
    found: list[Fused] = []
    made: dict[tuple[Step, int], Fused] = {}
    for number, (step, piece, num_numbers) in enumerate(steps):
        kind = step, piece.numel()
        if kind not in made:
            made[kind] = fuse(step, piece, num_numbers, num_state, way, block)
        found.append(made[kind])
        if found[-1].kernel != way:  # what cannot be compiled has been told
            way = found[-1].kernel
            if number:
                return fuse_all(steps, num_state, way, block)
    return found


def compile_pass(traced: Traced) -> Pass:
    """One loop in C++ or Triton, for as many threads as torch has now.

    Raises:
        Exception: Whatever Inductor raises.
    """
    copied = traced.copy()
    module, graph = copied.module, copied.module.graph
    (output,) = (node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(output):
        for result, target in zip(copied.results, copied.targets, strict=True):
            if result is not target:
                graph.call_function(torch.ops.aten.copy_.default, (target, result))
    output.args = ((),)
    module.recompile()
    config = _inductor_config()
    flushes = _flushes_denormals()
    with torch.no_grad(), warnings.catch_warnings(), config.patch(_options(config)):
        warnings.simplefilter("ignore")  # of torch's modules about one another
        from torch import _inductor
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            inputs: list[Any] = [*copied.inputs()]
        run: Pass = _inductor.compile(module, inputs)
        if traced.device.type == "cuda":
            _warm(run, traced)
    # Loading what GCC linked with -ffast-math, as torch up to 2.6 does, lets this thread round
    # denormal numbers to zero from then on.
    torch.set_flush_denormal(flushes)
    return run


def _inductor_config() -> Any:
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if torch.version.cuda and not torch.cuda.is_available():
            # Inductor needs this, and it complains about a GPU missing where none is wanted.
            importlib.import_module("torch.utils.cpp_extension")
        from torch._inductor import config
    return config


def _flushes_denormals() -> bool:
    return bool(torch.full((1,), 1e-40).mul(1.0).item() == 0.0)


def _options(config: Any) -> dict[str, Any]:
    contract = "cpp.enable_floating_point_contract_flag"
    wanted: dict[str, Any] = {
        # The number of threads is written into the code, so it has to be part of the key too.
        "cpp.threads": torch.get_num_threads(),
        "cpp.enable_unsafe_math_opt_flag": False,
        # No pool of compiling processes: one kernel is compiled, beside an MPI library that
        # does not like its process to be forked.
        "compile_threads": 1,
        "fx_graph_cache": True,
        "triton.cudagraphs": False,
    }
    if _knows(config, contract):  # a word in newer versions of torch
        wanted[contract] = (
            False if config.cpp.enable_floating_point_contract_flag is False else "off"
        )
    return {key: value for key, value in wanted.items() if _knows(config, key)}


def _knows(config: object, key: str) -> bool:
    """Return whether this torch has the setting; none of them is there in every version."""
    for name in key.split("."):
        if not hasattr(config, name):
            return False
        config = getattr(config, name)
    return True


def _warm(run: Pass, traced: Traced) -> None:
    """Let Triton load, and choose its launch parameters, on vectors that nobody needs."""
    run(*traced.inputs())
    torch.cuda.synchronize()


def _has_compiler(device: torch.device) -> bool:
    """Return whether compiling is worth a try; asking Inductor itself would cost seconds."""
    if device.type != "cpu":
        return True
    try:
        command = shell_words(os.environ.get("CXX", "g++"), "CXX") or ["g++"]
    except UserError as error:
        _warn("cannot be compiled", error)  # one host's variable ends no run
        return False
    if shutil.which(command[0]):
        return True
    _log.warning(
        "the update rule runs in blocks, some times slower than compiled: there is no C++ "
        "compiler %r on PATH. Load a compiler's module or set CXX, or set `fuse: blocks`",
        command[0],
    )
    return False


def _warn(what: str, error: Exception) -> None:
    _log.warning(
        "the update rule runs in blocks, some times slower than compiled: it %s (%s: %s)",
        what,
        type(error).__name__,
        (str(error).strip() or "no message").splitlines()[0],
    )


def _eager_pass(step: Step, length: int, device: torch.device, block: int) -> Pass:
    # A GPU has no cache to block for, and every further launch would cost more than it saves.
    return EagerPass(step, block if device.type == "cpu" else length)


def _block_pass(step: Step, traced: Traced, block: int) -> Pass:
    if traced.device.type == "cpu":
        for writing in _writings(traced, block):
            try:
                return BlockPass(traced, writing, block)
            except NotImplementedError as error:
                _log.debug("%s does not write the update rule: %s", type(writing).__name__, error)
    return _eager_pass(step, traced.length, traced.device, block)


def _writings(traced: Traced, block: int) -> Iterator[Writing]:
    """Kernels that may work, the fastest first."""
    if torch.get_num_threads() == 1 or min(block, traced.length) <= ONE_THREAD:
        yield NumpyWriting(traced.dtype)
    yield TorchWriting()
