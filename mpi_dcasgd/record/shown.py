"""A stream for people that a run outlives: it may be closed, full, or unable to print a letter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TextIO


class ShownStream:
    r"""Text stream whose failures end nothing: it falls silent, and says so once elsewhere.

    Args:
        stream: Where to.
        on_failure: Told once, with a sentence, when nothing more can be written.

    Example:
        >>> import io
        >>> page = io.TextIOWrapper(io.BytesIO(), "ascii")
        >>> _ = ShownStream(page).write("Größe")
        >>> page.flush(), page.buffer.getvalue()
        (None, b'Gr\\xf6\\xdfe')
    """

    def __init__(
        self, stream: TextIO, on_failure: Callable[[str], None] = lambda text: None
    ) -> None:
        self._stream = stream
        self._on_failure = on_failure
        self.silent = False
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"

    @classmethod
    def of(cls, stream: TextIO | ShownStream | None) -> ShownStream | None:
        """Return a stream that fails silently, or None for none."""
        return stream if stream is None or isinstance(stream, cls) else cls(stream)  # type: ignore[arg-type]

    def write(self, text: str) -> int:
        """Write a text, with escapes in place of letters that the stream cannot print."""
        if not self.silent:
            try:
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    plain = text.encode(self.encoding, "backslashreplace")
                    self._stream.write(plain.decode(self.encoding))
            except (OSError, ValueError) as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        if not self.silent:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def isatty(self) -> bool:
        """Return whether this is a terminal."""
        with suppress(OSError, ValueError, AttributeError):
            return not self.silent and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Return the number of the file; an OSError or a ValueError says that there is none."""
        return self._stream.fileno()

    def _fail(self, error: Exception) -> None:
        self.silent = True
        reason = getattr(error, "strerror", None) or error
        self._on_failure(
            f"progress can no longer be shown: {reason}; the run continues, and its messages are "
            "here and in its metrics"
        )
