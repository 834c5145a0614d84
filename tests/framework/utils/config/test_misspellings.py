"""Which name somebody may have meant."""

import pytest

from utils.config.misspellings import misspelling_of, num_edits, suggestion


@pytest.mark.parametrize(("one", "other", "edits"), [
    ("seed", "seed", 0), ("sed", "seed", 1), ("seeed", "seed", 1), ("sezd", "seed", 1),
    ("esed", "seed", 1), ("epoch", "epochs", 1), ("epcohss", "epochs", 2), ("", "ab", 2),
    ("abcdef", "fedcba", 5), ("a", "abcdef", 5)])
def test_letters_added_dropped_changed_and_swapped_are_counted(one: str, other: str,
                                                               edits: int) -> None:
    assert num_edits(one, other) == num_edits(other, one) == edits


@pytest.mark.parametrize(("word", "right"), [
    ("nme", "name"), ("EPOCHS", "epochs"), ("earlystpo", "early_stop"), ("nm", None),
    ("my_section", None), ("x", None)])
def test_a_long_name_may_be_missed_by_two_letters_a_short_one_by_one(word: str,
                                                                     right: str | None) -> None:
    assert misspelling_of(word, ["name", "epochs", "early_stop"]) == right


def test_the_nearest_of_several_is_meant() -> None:
    assert misspelling_of("save_stpes", ["save_freq", "save_dirs", "save_steps"]) == "save_steps"


def test_suggestion_has_up_to_three_names_or_nothing() -> None:
    assert suggestion("Adm", ["Adam", "SGD"]) == "; did you mean 'Adam'?"
    assert suggestion("zzz", ["Adam", "SGD"]) == ""
    assert suggestion("lr", ["lr1", "lr2", "lr3", "lr4"]).count(" or ") == 2
