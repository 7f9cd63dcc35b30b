"""Words of a text, as a shell would split it."""

from __future__ import annotations

import shlex

from mpi_dcasgd.errors import UserError


def shell_words(text: str, source: str) -> list[str]:
    """Split a text into words.

    Args:
        text: Somebody's, perhaps with quotation marks and backslashes.
        source: The option, argument or variable that it comes from, for the message.

    Raises:
        UserError: A quotation is not closed.

    Example:
        >>> shell_words("--mca btl 'self,tcp'", "--mpirun-args")
        ['--mca', 'btl', 'self,tcp']
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(
            f"{source}: got {text!r}; allowed: words as in a shell ({str(error).lower()})"
        ) from error
