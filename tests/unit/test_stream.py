"""Messages that leave one after the other."""

from __future__ import annotations

from typing import Any

from mpi_dcasgd.drivers.transport.stream import Stream


class Send:
    """A persistent send that is over once it is told so."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.over = name, log, False

    def Start(self) -> None:  # noqa: N802 (as mpi4py has it)
        self.log.append(self.name)
        self.over = False

    def Test(self) -> bool:  # noqa: N802
        return self.over


def sends(names: str, log: list[str]) -> list[Any]:
    return [Send(name, log) for name in names]


def test_a_message_leaves_when_the_one_before_is_gone() -> None:
    log: list[str] = []
    a, b, c = sends("abc", log)
    stream = Stream()
    stream.add([a, b])
    stream.add([c])
    assert not stream.move()
    assert log == ["a"]
    a.over = True
    assert not stream.move()
    assert log == ["a", "b"]
    b.over = c.over = True  # c's is of its last journey: it has to start before it can be over
    assert not stream.move()
    assert log == ["a", "b", "c"]
    c.over = True
    assert stream.move()
    assert stream.move()
    assert log == ["a", "b", "c"]


def test_the_same_message_may_come_again_and_what_is_cleared_does_not() -> None:
    log: list[str] = []
    a, b = sends("ab", log)
    stream = Stream()
    stream.add([a, a, b])
    a.over = True
    assert not stream.move()
    assert log == ["a", "a"]
    stream.clear()
    assert stream.move()
    assert log == ["a", "a"]
