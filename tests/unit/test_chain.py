"""The ways to run a chain: compiled, in blocks, plainly. They do the same, quietly, and once."""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from math import inf, nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from mpi_dcasgd.errors import STRICT
from mpi_dcasgd.rules import fuse as fuse_module
from mpi_dcasgd.rules.alignment import LANE_BYTES, PAGE_BYTES, zeros_beside
from mpi_dcasgd.rules.block_ops import ONE_THREAD, NumpyWriting, TorchWriting, Writing
from mpi_dcasgd.rules.blocks import BlockPass, EagerPass
from mpi_dcasgd.rules.chain import Chain, Rule
from mpi_dcasgd.rules.fuse import Fuse
from mpi_dcasgd.rules.graph import trace
from mpi_dcasgd.rules.part import Facts, Lanes, Part, Role, StateVector
from mpi_dcasgd.rules.stretch import Stretch
from tests.chains import CHAINS

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler"
)

SIZE = (1 << 16) + 4_483  # no multiple of anything
WORKERS = 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the server has; two on a busy machine wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def warning(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    """The one warning that was logged; torch itself says much at the lower levels."""
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    return record


def facts(step: int) -> Facts:
    """Numbers that are different at every step."""
    return Facts(
        lr=0.1 / (1 + step),
        lr_max=0.1,
        staleness=step % 4,
        version=step,
        worker=step * step % WORKERS,
        num_workers=WORKERS,
        grad_norm=3.0 / (1 + step),
    )


def run(
    rule: Rule,
    way: Fuse,
    *,
    size: int = SIZE,
    steps: int = 7,
    block: int = 1 << 14,
    stretches: Sequence[Stretch] = (),
) -> tuple[Chain, list[Tensor]]:
    """A chain, and everything it wrote: weights, snapshots, state."""
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(size, generator=generator)
    chain = Chain(rule, params, WORKERS, way, block, stretches)
    snapshots = [params.clone() for _ in range(WORKERS)]
    for step in range(steps):
        now = facts(step)
        grad = torch.randn(size, generator=generator) * 2.0 ** (step - 3)
        before = grad.clone()
        chain.apply(params, grad, snapshots[now.worker], now)
        assert torch.equal(grad, before)
    state = [vector for vectors in chain.state_dict().values() for vector in vectors]
    return chain, [params, *snapshots, *state]


def writing_of(chain: Chain) -> Writing:
    """Whose functions a chain in blocks calls."""
    assert isinstance(chain._works[0].run, BlockPass)
    return chain._works[0].run._writing


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.isfinite(mine).all()
        assert torch.equal(mine, theirs)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_compiled_equals_blocks_bit_for_bit(name: str) -> None:
    compiled, found = run(CHAINS[name], "compiled")
    blocks, expected = run(CHAINS[name], "blocks")
    assert (compiled.kernel, blocks.kernel) == ("compiled", "blocks")
    assert isinstance(writing_of(blocks), NumpyWriting)
    assert_same(found, expected)


GROUPS = (
    Stretch(0, 48, 0.5, 0.0),
    Stretch(48, SIZE - 101, 1.0, 2.0),
    Stretch(SIZE - 101, SIZE, 3.0, 1.0),
)
GROUPED = ("sgd", "dcasgd-a", "gap-aware", "dana", "weight_decay: l2")


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPED)
def test_compiled_equals_blocks_bit_for_bit_in_groups(name: str) -> None:
    compiled, found = run(CHAINS[name], "compiled", stretches=GROUPS)
    blocks, expected = run(CHAINS[name], "blocks", stretches=GROUPS)
    assert (compiled.kernel, blocks.kernel) == ("compiled", "blocks")
    assert_same(found, expected)
    assert compiled.vectors_moved == run(CHAINS[name], "blocks", steps=0)[0].vectors_moved


@pytest.mark.parametrize("name", CHAINS)
def test_groups_with_factors_of_1_are_one_pass_bit_for_bit(name: str) -> None:
    same = [Stretch(one.begin, one.end) for one in GROUPS]
    grouped, found = run(CHAINS[name], "blocks", stretches=same)
    assert grouped.stretches == (Stretch(0, SIZE),)
    assert_same(found, run(CHAINS[name], "blocks")[1])


@pytest.mark.parametrize("name", GROUPED)
def test_blocks_equal_the_plain_way_in_groups(name: str) -> None:
    expected = run(CHAINS[name], "plain", stretches=GROUPS)[1]
    for mine, theirs in zip(
        run(CHAINS[name], "blocks", stretches=GROUPS)[1], expected, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_group_that_does_not_decay_reads_no_more_than_the_rule_without_decay() -> None:
    stretches = (Stretch(0, 64, weight_decay=0.0), Stretch(64, 128))
    chain = Chain(CHAINS["weight_decay: l2"], torch.ones(128), 1, stretches=stretches)
    assert [len(work.step.parts) for work in chain._works] == [0, 1]


def test_stretches_have_to_cover_the_vector_in_order() -> None:
    for stretches in (
        [Stretch(0, 16), Stretch(32, 64, 2.0)],
        [Stretch(0, 32)],
        [Stretch(32, 64), Stretch(0, 32)],
    ):
        with pytest.raises(ValueError, match="do not cover 64 elements in order"):
            Chain(CHAINS["sgd"], torch.zeros(64), 1, stretches=stretches)


def test_groups_are_compiled_by_the_length_of_the_whole_vector_and_all_the_same_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fuse_module, "WORTH_COMPILING", SIZE)
    asked: list[int] = []

    def compile_pass(traced: Any) -> Callable[..., None]:
        asked.append(traced.length)
        if fails and len(asked) == 2:
            raise RuntimeError("no more")
        return lambda *vectors: None

    monkeypatch.setattr(fuse_module, "compile_pass", compile_pass)
    monkeypatch.setattr(fuse_module, "_has_compiler", lambda device: True)
    fails = False
    assert run(CHAINS["sgd"], "auto", steps=0, stretches=GROUPS)[0].kernel == "compiled"
    assert asked == [one.end - one.begin for one in GROUPS]
    fails = True
    asked.clear()
    chain = run(CHAINS["sgd"], "auto", steps=0, stretches=GROUPS)[0]
    assert chain.kernel == "blocks"
    assert all(isinstance(work.run, BlockPass) for work in chain._works)
    assert "could not be compiled" in warning(caplog).getMessage()


@pytest.mark.parametrize("name", CHAINS)
def test_blocks_equal_the_plain_way_to_rounding(name: str) -> None:
    plain, expected = run(CHAINS[name], "plain")
    assert plain.kernel == "plain"
    for mine, theirs in zip(run(CHAINS[name], "blocks")[1], expected, strict=True):
        # torch's square root may be one unit in the last place off, and what comes of that
        # after some steps; nothing else differs.
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CHAINS)
def test_no_result_depends_on_the_block_size(name: str) -> None:
    expected = run(CHAINS[name], "blocks", block=SIZE)[1]
    for block in (5_001, 2 * SIZE):
        assert_same(run(CHAINS[name], "blocks", block=block)[1], expected)
    short = run(CHAINS[name], "blocks", size=100, block=100)[1]
    assert_same(run(CHAINS[name], "blocks", size=100, block=7)[1], short)


@pytest.mark.parametrize(
    ("name", "vectors"), [("sgd", 4), ("dcasgd-c", 5), ("dcasgd-a", 7), ("dana", 8)]
)
def test_every_vector_is_read_and_written_once_at_the_most(name: str, vectors: int) -> None:
    assert run(CHAINS[name], "blocks", steps=0)[0].vectors_moved == vectors


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each thing that Inductor is asked to compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's modules about one another, when first imported
        import torch._inductor.compile_fx as compile_fx

    seen: list[str] = []
    genuine = compile_fx.compile_fx

    def counting(module: Any, *args: Any, **kwargs: Any) -> Any:
        if not seen or seen[-1] != "compiling":
            seen.append("compiling")
        return genuine(module, *args, **kwargs)

    monkeypatch.setattr(compile_fx, "compile_fx", counting)
    return seen


@pytest.mark.slow
@needs_compiler
def test_nothing_is_compiled_after_construction(compilations: list[str]) -> None:
    rule = CHAINS["momentum: per-worker"]
    params, grad, snapshot = torch.randn(3, SIZE).unbind()
    chain = Chain(rule, params, 5, fuse="compiled")
    assert compilations == ["compiling"]
    compilations.clear()
    for step in range(20):
        now = facts(step)._replace(worker=step % 5, lr=10.0**-step)
        torch.set_num_threads(1 + step % 2)
        with torch.set_grad_enabled(step % 3 == 0):
            chain.apply(params, grad, snapshot, now)
    assert compilations == []
    assert chain.kernel == "compiled"


@needs_compiler
def test_no_process_is_left_behind() -> None:
    run(CHAINS["sgd"], "compiled", steps=1)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    names = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not [name for name in names if b"compile" in name]


@needs_compiler
def test_a_compiled_pass_leaves_denormal_numbers_alone() -> None:
    run(CHAINS["sgd"], "compiled", steps=1)
    tiny = torch.full((SIZE,), 1e-40)
    params = torch.zeros(SIZE)
    chain = Chain(CHAINS["sgd"], params, 1, fuse="compiled")
    chain.apply(params, tiny, params.clone(), facts(0)._replace(lr=1.0, worker=0))
    assert torch.equal(params, -tiny)
    assert torch.count_nonzero(tiny * 0.5) == SIZE


@pytest.mark.parametrize(
    ("way", "size", "kernel"),
    [
        ("auto", 999, "blocks"),
        ("auto", 1_000, "compiled"),
        ("blocks", 1_000, "blocks"),
        ("compiled", 999, "compiled"),
    ],
)
def test_how_it_is_chosen(
    way: Fuse, size: int, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuse_module, "WORTH_COMPILING", 1_000)
    monkeypatch.setattr(fuse_module, "compile_pass", lambda traced: lambda *vectors: None)
    assert Chain(CHAINS["sgd"], torch.zeros(size), 1, fuse=way).kernel == kernel


def test_numbers_of_each_stretch_begin_where_compiled_code_expects_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begins: list[int] = []

    def compile_pass(traced: Any) -> Callable[..., None]:
        return lambda params, grad, sent, numbers, *state: begins.append(numbers.data_ptr())

    monkeypatch.setattr(fuse_module, "compile_pass", compile_pass)
    monkeypatch.setattr(fuse_module, "_has_compiler", lambda device: True)
    run(CHAINS["dcasgd-a"], "compiled", steps=1, stretches=GROUPS)
    assert begins[0] % 64 == 0
    assert begins == [begins[0] + 64 * number for number in range(len(GROUPS))], "one line each"


@pytest.mark.parametrize(("contracts", "asked"), [("fast", "off"), (True, "off"), (False, False)])
def test_the_compiler_is_asked_for_the_bits_of_ieee_and_for_no_process(
    contracts: object, asked: object
) -> None:
    cpp = SimpleNamespace(
        threads=-1,
        enable_unsafe_math_opt_flag=True,
        enable_floating_point_contract_flag=contracts,
    )
    old = SimpleNamespace(cpp=cpp, compile_threads=8, fx_graph_cache=False)
    options = {
        "cpp.threads": 1,
        "cpp.enable_unsafe_math_opt_flag": False,
        "cpp.enable_floating_point_contract_flag": asked,
        "compile_threads": 1,
        "fx_graph_cache": True,
    }
    assert fuse_module._options(old) == options, "what this torch does not know is left out"
    new = SimpleNamespace(**vars(old), triton=SimpleNamespace(cudagraphs=True))
    assert fuse_module._options(new) == {**options, "triton.cudagraphs": False}


def test_a_state_vector_begins_elsewhere_in_its_page_than_the_weights() -> None:
    params = torch.zeros(SIZE)
    chain = Chain(CHAINS["dana"], params, 2)
    places = [v.data_ptr() % PAGE_BYTES for vs in chain.state_dict().values() for v in vs]
    begin = params.data_ptr() % PAGE_BYTES
    # Two velocities, of which one is used at a time, and their sum.
    apart = [(place - begin) % PAGE_BYTES for place in places]
    assert apart == [3 * LANE_BYTES, 3 * LANE_BYTES, 4 * LANE_BYTES]
    assert zeros_beside(torch.zeros(5, dtype=torch.float64), 1).shape == (5,)


# A user's own parts.


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Soft(Part):
    """A sign with soft corners, decaying towards what it remembers of the weights."""

    role: ClassVar[Role] = "momentum"

    def vectors(self) -> tuple[StateVector, ...]:
        return (StateVector("anchor", per_worker=True, fill="weights"),)

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (0.01 * facts.staleness, 1e-3)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        pull, width = scalars
        soft = lanes.direction / (lanes.direction.abs() + width)
        away = torch.where(soft > 0, lanes.params - state[0], torch.zeros_like(soft))
        return lanes._replace(direction=soft + away * (pull * 2)), (lanes.params.clamp(-1, 1),)


@needs_compiler
def test_a_part_of_ones_own_is_fused_as_well() -> None:
    rule = Rule(momentum=Soft())
    compiled, found = run(rule, "compiled")
    blocks, expected = run(rule, "blocks")
    assert compiled.kernel == "compiled"
    # A choice between values is not among the operations that NumPy does here.
    assert isinstance(writing_of(blocks), TorchWriting)
    assert_same(found, expected)
    assert_same(found, run(rule, "plain")[1])


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Shuffle(Part):
    """Hands inputs on as state: last gradient, last weights, and two vectors that change places."""

    role: ClassVar[Role] = "momentum"

    def vectors(self) -> tuple[StateVector, ...]:
        return tuple(StateVector(name) for name in ("last_grad", "last_params", "one", "other"))

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        last_grad, last_params, one, other = state
        direction = lanes.direction + last_grad + 0.5 * last_params + one - other
        new = (lanes.grad, lanes.params * 1.0, other, one.clone())
        return lanes._replace(direction=direction), new


@pytest.mark.parametrize("way", [pytest.param("compiled", marks=needs_compiler), "blocks", "plain"])
def test_state_that_is_an_input_is_taken_before_it_is_overwritten(way: Fuse) -> None:
    params = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    chain = Chain(Rule(momentum=Shuffle()), params, 1, fuse=way)
    last_grad = last_params = torch.zeros(SIZE)
    one, other = torch.randn(2, SIZE).unbind()
    chain.load_state_dict(
        {"momentum.last_grad": [last_grad], "momentum.last_params": [last_params]}
        | {"momentum.one": [one], "momentum.other": [other]}
    )
    expected = params.clone()
    for _ in range(4):
        grad = torch.randn(SIZE)
        chain.apply(params, grad, params.clone(), facts(0)._replace(lr=0.5, worker=0))
        before = expected
        expected = before - (grad + last_grad + 0.5 * last_params + one - other) * 0.5
        last_grad, last_params, one, other = grad, before, other, one
    assert_same([params], [expected])
    state = [vectors[0] for vectors in chain.state_dict().values()]
    assert_same(state, [last_grad, last_params, one, other])


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Deciding(Part):
    """Looks at a number before it decides what to do."""

    role: ClassVar[Role] = "momentum"

    def scalars(self, facts: Facts) -> tuple[float, ...]:
        return (float(facts.staleness),)

    def update(
        self, lanes: Lanes, state: tuple[Tensor, ...], scalars: tuple[float | Tensor, ...]
    ) -> tuple[Lanes, tuple[Tensor, ...]]:
        direction = lanes.direction * 0.5 if scalars[0] > 1 else lanes.direction
        return lanes._replace(direction=direction), state


def test_a_part_that_cannot_be_written_down_still_works_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chain, found = run(Rule(momentum=Deciding()), "compiled")
    assert chain.kernel == "blocks"
    record = warning(caplog)
    assert record.name == "mpi_dcasgd.rules.fuse"
    assert "runs in blocks" in record.message
    assert_same(found, run(Rule(momentum=Deciding()), "plain")[1])


def test_a_compilation_that_fails_leaves_blocks_and_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(traced: object) -> None:
        raise RuntimeError("the compiler is out of order\nand this is a long story")

    monkeypatch.setattr(fuse_module, "compile_pass", broken)
    chain, found = run(CHAINS["dcasgd-c"], "compiled")
    assert chain.kernel == "blocks"
    record = warning(caplog)
    assert record.message.endswith("(RuntimeError: the compiler is out of order)")
    assert_same(found, run(CHAINS["dcasgd-c"], "blocks")[1])


# Scratch blocks.

Operation = Callable[[Tensor, Tensor], Tensor]

EXACT: tuple[Operation, ...] = (
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: x / (y * y + 1.0),
    lambda x, y: torch.maximum(x, -y),
    lambda x, y: torch.minimum(x, y),
    lambda x, y: x.abs() + 1.0,
    lambda x, y: x.clone(),
)
OPERATIONS: tuple[Operation, ...] = (
    *EXACT,
    lambda x, y: torch.where(x > y, x, y * 0.5),
    lambda x, y: y.sign(),
)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(
    ("writing", "operations"), [(TorchWriting(), OPERATIONS), (NumpyWriting(torch.float32), EXACT)]
)
def test_random_steps_in_scratch_blocks(
    writing: Writing, operations: tuple[Operation, ...], seed: int
) -> None:
    """Whatever depends on whatever: no value is overwritten before its last reader."""

    def step(
        params: Tensor, grad: Tensor, snapshot: Tensor, numbers: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        choose = random.Random(seed)
        values = [params, grad, snapshot, *state, *numbers.unbind()]
        results = []
        for _ in range(choose.randrange(1, 15)):
            # Written so that the first operand is a vector: numbers alone make no vector.
            vectors = [value for value in values if value.ndim]
            operation = choose.choice(operations)
            results.append(operation(choose.choice(vectors), choose.choice(values)))
            values.append(results[-1])
        return tuple(choose.choice([*results, params, grad, *state]) for _ in range(4))

    size = 1_003
    vectors = [torch.randn(size) for _ in range(5)]
    numbers = torch.randn(3)
    found, expected = ([v.clone() for v in vectors] for _ in range(2))
    for into, run_pass in (
        (found, BlockPass(trace(step, vectors[0], 3, 2), writing, block=100)),
        (expected, EagerPass(step, size)),
    ):
        params, grad, snapshot, *state = into
        run_pass(params, grad, snapshot, numbers, *state)
    assert_same(found, expected)


@pytest.mark.parametrize("name", CHAINS)
def test_torch_and_numpy_give_the_same_bits(name: str) -> None:
    with_numpy, expected = run(CHAINS[name], "blocks")
    torch.set_num_threads(2)
    with_torch, found = run(CHAINS[name], "blocks", block=SIZE)
    writings = (type(writing_of(with_numpy)), type(writing_of(with_torch)))
    assert writings == (NumpyWriting, TorchWriting)
    assert_same(found, expected)
    assert isinstance(writing_of(run(CHAINS[name], "blocks", size=ONE_THREAD)[0]), NumpyWriting)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_at_the_edges_are_the_same_with_numpy_and_say_nothing(dtype: torch.dtype) -> None:
    def step(params: Tensor, grad: Tensor, snapshot: Tensor, numbers: Tensor) -> tuple[Tensor, ...]:
        third, _ = numbers.unbind()
        return (params / grad + third * 3, torch.sqrt(snapshot) * (numbers[1] / third * 0.1))

    tiny, big = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    edges = torch.tensor([0.0, -0.0, 1.0, -1.0, tiny / 8, tiny, big, -big, inf, -inf, nan])
    edges = edges.to(dtype)
    vectors = torch.cartesian_prod(edges, edges).T.contiguous()
    numbers = torch.tensor([1 / 3, 7.0], dtype=dtype)
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for writing in (TorchWriting(), NumpyWriting(dtype)):
            params, grad, snapshot = vectors[0].clone(), vectors[1].clone(), vectors[0].clone()
            traced = trace(step, params, 2, 0)
            BlockPass(traced, writing, block=50)(params, grad, snapshot, numbers)
            results.append((params, snapshot))
    for mine, theirs in zip(*results, strict=True):
        assert mine.isnan().any()
        assert mine.isinf().any()
        # Bit by bit, except that one NaN is as good as another.
        integer = torch.int32 if dtype == torch.float32 else torch.int64
        both = ~mine.isnan()
        assert torch.equal(mine.isnan(), theirs.isnan())
        assert torch.equal(mine[both].view(integer), theirs[both].view(integer))


def test_vectors_may_come_and_go() -> None:
    """The arrays of vectors are kept: never another vector's, and not without limit."""
    chain = Chain(CHAINS["dcasgd-c"], torch.zeros(64), 1)
    writing = writing_of(chain)
    assert isinstance(writing, NumpyWriting)
    most = 0
    for step in range(600):
        params, grad, snapshot = torch.full((3, 64), float(step)).unbind()
        chain.apply(params, grad, snapshot, facts(step)._replace(lr=0.5, worker=0))
        assert torch.equal(params, torch.full((64,), step / 2))
        assert torch.equal(snapshot, params)
        most = max(most, len(writing._arrays))
    assert 16 < most <= 256


# With another compiler, or none.

SCRIPT = """
import sys, torch
from mpi_dcasgd.rules.algorithms import resolve_rule
from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.part import Facts
params = torch.ones(5000)
chain = Chain(resolve_rule("asgd"), params, 1, fuse="compiled")
chain.apply(params, torch.ones(5000), params.clone(), Facts(0.25, 0.25, 0, 0, 0, 1, 1.0))
assert torch.equal(params, torch.full((5000,), 0.75))
sys.exit({"compiled": 10, "blocks": 11}[chain.kernel])
"""


def in_a_process(tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), **environ},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_without_a_compiler(tmp_path: Path) -> None:
    done = in_a_process(tmp_path, CXX="no-such-compiler", PATH="")
    assert done.returncode == 11, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "no C++ compiler 'no-such-compiler' on PATH" in line


def test_with_a_compiler_in_an_open_quotation(tmp_path: Path) -> None:
    done = in_a_process(tmp_path, CXX='g++ "-O2')
    assert done.returncode == 11, done.stderr
    (line,) = done.stderr.splitlines()
    assert "the update rule runs in blocks" in line
    assert "CXX: got 'g++ \"-O2'; allowed: words as in a shell" in line


@pytest.mark.slow
def test_with_a_compiler_that_does_not_work(tmp_path: Path) -> None:
    done = in_a_process(tmp_path, CXX="false")
    assert done.returncode == 11, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "could not be compiled" in line


@needs_compiler
@pytest.mark.slow
def test_compiling_for_the_first_time_says_nothing(tmp_path: Path) -> None:
    done = in_a_process(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (10, "", "")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("stretches", [(), GROUPS], ids=["alike", "groups"])
@pytest.mark.parametrize("name", CHAINS)
def test_on_a_gpu_compiled_equals_plain_to_rounding(
    name: str, stretches: tuple[Stretch, ...]
) -> None:
    device = torch.device("cuda")
    params = torch.randn(SIZE)
    written = {}
    for way in ("compiled", "blocks"):
        generator = torch.Generator().manual_seed(0)
        mine = params.to(device)
        chain = Chain(CHAINS[name], mine, WORKERS, way, stretches=stretches)
        assert chain.kernel == way
        snapshots = [mine.clone() for _ in range(WORKERS)]
        for step in range(7):
            now = facts(step)
            grad = torch.randn(SIZE, generator=generator).to(device)
            chain.apply(mine, grad, snapshots[now.worker], now)
        written[way] = [mine, *snapshots]
    for found, expected in zip(*written.values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
