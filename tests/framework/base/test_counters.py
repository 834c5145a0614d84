import pytest

from base.counters import Counters


def test_counts_go_on_over_epochs_that_are_no_passes():
    counters = Counters()
    for epoch in (1, 2):
        for _ in range(3):
            counters.finish_batch(4)
        counters.finish_epoch(epoch)
    assert vars(counters) == {"epoch": 2, "batch": 0, "step": 0, "passes": 0, "samples": 24,
                              "unvalidated": 6, "planned": None}


def test_finished_pass_starts_the_next_one_at_its_first_sample():
    counters = Counters()
    counters.finish_batch(4)
    counters.finish_pass()
    assert (counters.passes, counters.samples, counters.batch) == (1, 0, 1)


@pytest.mark.parametrize(("num_batches", "place"), [(0, "after epoch 4"),
                                                    (2, "in epoch 5 after batch 2")])
def test_place_is_said_in_words_and_restored(num_batches, place):
    before, after = Counters(), Counters()
    before.finish_epoch(4)
    for _ in range(num_batches):
        before.finish_batch(8)
    state = before.state_dict()
    before.finish_batch(8)
    after.load_state_dict(state)
    assert after.place() == place and after.samples == 8 * num_batches
