"""Names that somebody may have meant: for messages, and to refuse keys that look mistyped."""

import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def near_names(word: str, names: Iterable[str]) -> list[str]:
    """The known names most like ``word``, best first, for a message."""
    return get_close_matches(str(word), list(names), n=3, cutoff=0.6)


def suggestion(word: str, names: Iterable[str]) -> str:
    """"; did you mean ...?", or nothing."""
    found = near_names(word, names)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def misspelling_of(word: str, names: Iterable[str]) -> str | None:
    """The known name that ``word`` misses by a letter, or by two where the name is long."""
    reached = {name: num_edits(str(word).lower(), name.lower()) for name in names}
    close = [name for name, edits in reached.items() if edits <= (2 if len(name) > 5 else 1)]
    return min(close, key=reached.__getitem__, default=None)


def num_edits(one: str, other: str) -> int:
    """Letters to add, drop, change or swap with their neighbour to get from one to the other."""
    if abs(len(one) - len(other)) > 2:
        return abs(len(one) - len(other))
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        two_before, before, row = before, row, [i + 1]
        for j, target in enumerate(other):
            edits = min(before[j] + (letter != target), before[j + 1] + 1, row[j] + 1)
            if i and j and letter == other[j - 1] and one[i - 1] == target:
                edits = min(edits, two_before[j - 1] + 1)
            row.append(edits)
    return row[-1]


def misspelt_keys(values: dict[str, Any], known: list[str], prefix: str = "") -> dict[str, str]:
    """What to tell of the keys that look like a known one with a letter or two wrong, by path."""
    nearest = {key: misspelling_of(key, known) for key in values if key not in known}
    return {f"{prefix}{key}": f"unknown key (with {shown(values[key])}); did you mean {near!r}? A "
                              "key of your own needs a name less like it"
            for key, near in nearest.items() if near is not None}


def shown(value: Any) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= 60 else text[:57] + "..."
