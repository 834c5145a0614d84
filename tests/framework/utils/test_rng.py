import io
import random

import numpy as np
import pytest
import torch

from utils.rng import (
    OwnStream,
    RandomState,
    mix_seed,
    preserved,
    seeded,
    set_deterministic,
    set_seed,
)


def draws():
    """Two of everything: the second normal of a pair is kept by numpy and python."""
    return [torch.rand(3).tolist(), np.random.rand(3).tolist(), np.random.randn(3).tolist(),
            random.random(), random.gauss(0, 1), torch.randn(3).tolist()]


def half_a_pair():
    """Leaves the second normal of a pair waiting in numpy and python."""
    set_seed(11)
    np.random.randn()
    random.gauss(0, 1)


@pytest.mark.parametrize("seed", [0, 123, 2**32 - 1])
def test_seed_fixes_torch_numpy_and_python(seed):
    set_seed(seed)
    first = draws()
    set_seed(seed)
    assert draws() == first


def test_zero_is_a_seed_of_its_own():
    set_seed(0)
    zero = draws()
    set_seed(1)
    assert draws() != zero


def test_mixed_seed_is_the_same_on_every_machine():
    assert mix_seed(123, 0, 1) == 1078954585318600291


def test_mixed_seeds_fit_every_generator_and_differ():
    seeds = [mix_seed(a, b, c) for a in range(10) for b in range(-1, 9) for c in range(10)]
    assert len(set(seeds)) == 1000 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("prepare", [lambda: set_seed(5), half_a_pair])
def test_random_state_round_trip_is_exact(prepare):
    prepare()
    state = RandomState().state_dict()
    first = draws()
    set_seed(99)
    RandomState().load_state_dict(state)
    assert draws() == first


def test_random_state_survives_a_safe_load():
    half_a_pair()
    file = io.BytesIO()
    torch.save(RandomState().state_dict(), file)
    first = draws()
    file.seek(0)
    RandomState().load_state_dict(torch.load(file, weights_only=True))
    assert draws() == first


def test_state_does_not_change_with_the_generators():
    set_seed(5)
    state = RandomState().state_dict()
    before = state["torch"].clone(), state["numpy"]["key"].clone()
    draws()
    np.random.rand(1000)
    assert torch.equal(state["torch"], before[0]) and torch.equal(state["numpy"]["key"], before[1])


@pytest.mark.parametrize("prepare", [lambda: set_seed(5), half_a_pair])
@pytest.mark.parametrize("inside", [preserved, lambda: seeded(3)], ids=["preserved", "seeded"])
def test_streams_outside_stay_where_they_were(inside, prepare):
    prepare()
    undisturbed = draws()
    prepare()
    with inside():
        draws()
        np.random.randn()
        random.gauss(0, 1)
    assert draws() == undisturbed


@pytest.mark.parametrize("inside", [preserved, lambda: seeded(3)], ids=["preserved", "seeded"])
def test_streams_outside_stay_where_they_were_after_an_exception(inside):
    half_a_pair()
    undisturbed = draws()
    half_a_pair()
    with pytest.raises(KeyError), inside():
        draws()
        raise KeyError
    assert draws() == undisturbed


@pytest.mark.parametrize("prepare", [lambda: set_seed(5), half_a_pair])
def test_draws_inside_follow_from_the_seed_alone(prepare):
    with seeded(3):
        first = draws()
    prepare()
    with seeded(3):
        assert draws() == first
    with seeded(4):
        assert draws() != first


def test_seeded_streams_may_be_nested():
    with seeded(3):
        first = draws() + draws()
    with seeded(3):
        second = draws()
        with seeded(4):
            draws()
        assert second + draws() == first


DRAWS = {"torch": lambda: torch.rand(()).item(), "numpy": np.random.rand, "python": random.random,
         "all": draws}


@pytest.mark.parametrize("kind", DRAWS)
def test_own_stream_draws_the_same_numbers_whatever_is_drawn_outside(kind):
    set_seed(5)
    undisturbed = [draws() for _ in range(3)]
    set_seed(5)
    stream, inside, outside = OwnStream(), [], []
    for _ in range(3):
        with stream:
            inside.append(DRAWS[kind]())
        outside.append(draws())
    assert outside == undisturbed and inside[0] != inside[1] != inside[2]
    again = OwnStream()
    for number in inside:
        with again:
            assert DRAWS[kind]() == number


def test_own_stream_of_what_may_draw_later_is_torchs():
    set_seed(5)
    undisturbed = draws()
    set_seed(5)
    stream = OwnStream(may_draw_later=True)
    with stream:
        pass
    with stream:
        torch.rand(3)
    assert draws() == undisturbed


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("num_uses", [0, 1, 2])
def test_own_stream_goes_on_where_it_was_saved(kind, num_uses):
    whole = OwnStream()
    for _ in range(num_uses):
        with whole:
            DRAWS[kind]()
    resumed = OwnStream()
    resumed.load_state_dict(whole.state_dict())
    numbers = []
    for stream in (whole, resumed):
        for _ in range(2):
            with stream:
                numbers.append(DRAWS[kind]())
    assert numbers[:2] == numbers[2:]


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("before", [lambda: None, *DRAWS.values()])
def test_stream_that_is_watched_again_is_one_of_its_own_for_draws_that_are_new(kind, before):
    stream = OwnStream()
    for _ in range(2):
        with stream:
            before()
    stream.watch()
    set_seed(5)
    undisturbed = draws()
    set_seed(5)
    for _ in range(2):
        with stream:
            DRAWS[kind]()
    assert draws() == undisturbed


def test_restarted_stream_draws_its_first_numbers_again():
    stream = OwnStream()
    with stream:
        first = draws()
    set_seed(99)
    stream.restart()
    with stream:
        assert draws() == first


@pytest.mark.parametrize(("mode", "enabled", "warns"), [
    (True, True, False), ("warn", True, True), (False, False, False)])
def test_deterministic_is_a_setting(mode, enabled, warns):
    benchmark = torch.backends.cudnn.benchmark
    try:
        set_deterministic(mode)
        assert torch.are_deterministic_algorithms_enabled() is enabled
        assert torch.is_deterministic_algorithms_warn_only_enabled() is warns
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = benchmark
