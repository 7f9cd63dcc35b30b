"""The ``#SBATCH`` lines of a script, written so that sbatch reads back what was meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mpi_dcasgd.errors import ConfigError

_SPECIAL = re.compile(r"[\s\"'#\\]")
_OPTION = re.compile(r"(--[\w-]+=|--[\w-]+\s+|-\w\s+)(.*)", re.DOTALL)


def directive(word: str) -> str:
    """Return the line of a script that gives an option to sbatch.

    sbatch splits a line at blanks, ends it at a ``#``, and knows quotes and backslashes; in double
    quotes only a backslash and the quote itself need a backslash before them.

    Args:
        word: An option with its value, as one would give it on a command line, unquoted.

    Raises:
        ConfigError: It has a line break, which no line of a script can hold.

    Example:
        >>> directive("--output=runs/try#2/%j.out")
        '#SBATCH --output="runs/try#2/%j.out"'
    """
    if re.search(r"[\n\r\0]", word):
        raise ConfigError(
            "sbatch", [f"{word!r}: has a line break, which no #SBATCH line can hold; rename it"]
        )
    found = _OPTION.fullmatch(word)
    option, value = found.groups() if found else ("", word)
    if _SPECIAL.search(value):
        value = '"' + re.sub(r"([\\\"])", r"\\\1", value) + '"'
    return f"#SBATCH {option}{value}"


def directives(words: Sequence[str]) -> str:
    """Return the lines of several options; of one that is given twice sbatch takes the last."""
    return "\n".join(map(directive, words))


def output_option(logs: str, name: str) -> str:
    """Return the option that has a job print into a file of a folder.

    Args:
        logs: The folder, taken literally.
        name: The file, in sbatch's patterns.

    Raises:
        ConfigError: The folder has a backslash: SLURM then takes no pattern for one.
    """
    if "\\" in logs:
        raise ConfigError(
            "sbatch",
            [f"{logs}: has a backslash, with which SLURM's log has no name; use another folder"],
        )
    return f"--output={logs.replace('%', '%%')}/{name}"


def sets(words: Sequence[str], *names: str) -> bool:
    """Return whether options of sbatch have one of these among them.

    Example:
        >>> sets(["--mem=4G", "-o x.out"], "-o", "--output")
        True
    """
    return any(
        re.match(rf"{re.escape(name)}(=|\s|\Z)" if name[1] == "-" else re.escape(name), word)
        for word in words
        for name in names
    )
