import pytest

from base.stateful import Parts, as_part, collect, restore
from utils.errors import CheckpointError


class Part:
    def __init__(self, value=0, loads=None):
        self.value = value
        self.loads = loads if loads is not None else []

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]
        self.loads.append(self.value)


def test_absent_parts_are_not_collected():
    assert collect({"a": Part(1), "b": None}) == {"a": {"value": 1}}


def test_parts_are_restored_in_their_own_order():
    loads = []
    parts = {"z": Part(loads=loads), "a": Part(loads=loads), "random": Part(loads=loads)}
    restore(parts, {"random": {"value": 3}, "a": {"value": 2}, "z": {"value": 1}})
    assert loads == [1, 2, 3]


def test_missing_and_unknown_parts_are_one_error_with_both_lists():
    parts = {"a": Part(), "b": Part(), "c": Part()}
    with pytest.raises(CheckpointError) as caught:
        restore(parts, {"a": {"value": 1}, "x": {}, "y": {}})
    assert "missing in the checkpoint: b, c" in str(caught.value)
    assert "unknown to the run: x, y" in str(caught.value)


def test_error_about_parts_changes_nothing():
    part = Part(5)
    with pytest.raises(CheckpointError):
        restore({"a": part, "b": Part()}, {"a": {"value": 1}})
    assert part.value == 5


@pytest.mark.parametrize("make", [lambda a, b: [a, b], lambda a, b: {"g": a, "d": b},
                                  lambda a, b: (a, b), lambda a, b: {0: a, 1: b}])
def test_several_things_are_one_part(make):
    part = as_part(make(Part(1), Part(2)))
    first, second = Part(), Part()
    as_part(make(first, second)).load_state_dict(part.state_dict())
    assert (first.value, second.value) == (1, 2)


def test_things_without_state_are_no_part():
    assert as_part(print) is None
    assert Parts({"a": Part(1), "b": print}).state_dict() == {"a": {"value": 1}}
