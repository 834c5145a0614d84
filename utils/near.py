"""Names that somebody may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def near_names(word: str, names: Iterable[str], *, misspelling: bool = False) -> list[str]:
    """The known names most like ``word``, best first.

    Args:
        misspelling: only those that differ by about a letter, so that neither ``keep_best`` is a
            misspelling of ``keep_last`` nor ``valid_data_loader`` one of ``data_loader``.
    """
    cutoff = 0.6 if not misspelling else 0.8 if len(str(word)) > 5 else 0.7
    found = get_close_matches(str(word), list(names), n=3, cutoff=cutoff)
    return [name for name in found if not misspelling or abs(len(name) - len(str(word))) <= 2]


def suggestion(word: str, names: Iterable[str], *, misspelling: bool = False) -> str:
    """"; did you mean ...?", or nothing."""
    found = near_names(word, names, misspelling=misspelling)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def known_for(missing: str, given: Iterable[str]) -> str | None:
    """The given name that looks like a misspelling of the missing one."""
    found = near_names(missing, given, misspelling=True)
    return found[0] if found else None
