"""Numbers with their nouns, as people write them: ``1 worker``, ``4 workers``."""

from __future__ import annotations

_HISSING = ("s", "x", "ch", "sh")


def counted(number: float, noun: str, spec: str = "") -> str:
    """Return a number and what it is of.

    Args:
        number: Of what there is; what is shown as 1 is singular.
        noun: In the singular; of several words the last one changes.
        spec: Format of the number, as in an f-string.

    Example:
        >>> counted(1, "worker"), counted(2500, "minibatch", ","), counted(0, "tuning run")
        ('1 worker', '2,500 minibatches', '0 tuning runs')
    """
    shown = f"{number:{spec}}"
    return f"{shown} {agreeing(1 if shown == '1' else 2, noun)}"


def agreeing(number: float, noun: str) -> str:
    """Return a noun alone, as it stands with a number.

    Example:
        >>> agreeing(1, "seed"), agreeing(3, "seed"), agreeing(2, "class"), agreeing(2, "entry")
        ('seed', 'seeds', 'classes', 'entries')
    """
    if number == 1:
        return noun
    if noun.endswith("epoch"):  # it ends in a k
        return noun + "s"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(_HISSING) else "s")
