from base.progress import Progress


def test_counts_go_on_over_epochs_that_are_no_passes():
    progress = Progress()
    for epoch in (1, 2):
        for _ in range(3):
            progress.finish_batch()
        progress.finish_epoch(epoch)
    assert vars(progress) == {
        "epoch": 2, "batch": 0, "step": 6, "data_epoch": 0, "data_batch": 6}


def test_finished_pass_starts_the_next_one_at_its_first_batch():
    progress = Progress()
    progress.finish_batch()
    progress.finish_pass()
    assert (progress.data_epoch, progress.data_batch, progress.batch) == (1, 0, 1)


def test_counts_are_restored():
    before, after = Progress(), Progress()
    before.finish_batch()
    before.finish_epoch(4)
    after.load_state_dict(before.state_dict())
    assert vars(after) == vars(before)


def test_state_is_a_copy():
    progress = Progress()
    state = progress.state_dict()
    progress.finish_batch()
    assert state["batch"] == 0
