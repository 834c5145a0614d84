import pytest

from base.callback import HOOKS, Callback, CallbackList
from utils.errors import CheckpointError


class Recorder(Callback):
    def __init__(self, calls):
        self.calls = calls

    def on_epoch_end(self, trainer, epoch, log):
        self.calls.append((self, trainer, epoch, log))


class Counter(Callback):
    def __init__(self):
        self.count = 0

    def on_step_end(self, trainer, batch_idx, batch):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_hooks_get_the_trainer_and_the_arguments_in_the_order_of_callbacks():
    calls, log = [], {"loss": 1}
    first, second = Recorder(calls), Recorder(calls)
    CallbackList([first, second]).call("on_epoch_end", "trainer", 3, log)
    assert calls == [(first, "trainer", 3, log), (second, "trainer", 3, log)]


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_that_nobody_overrides_calls_nothing(hook):
    CallbackList([Callback()]).call(hook, "trainer", "too", "many", "arguments")


def test_state_of_each_callback_is_restored_two_of_a_class_apart():
    before = CallbackList([Counter(), Counter()])
    before.callbacks[0].count, before.callbacks[1].count = 3, 8
    after = CallbackList([Counter(), Counter()])
    after.load_state_dict(before.state_dict())
    assert [callback.count for callback in after.callbacks] == [3, 8]


def test_callbacks_without_state_may_come_and_go_between_a_run_and_its_resume():
    before = CallbackList([Recorder([]), Counter()])
    CallbackList([Counter()]).load_state_dict(before.state_dict())
    CallbackList([Counter(), Callback()]).load_state_dict(before.state_dict())


def test_callback_whose_state_is_missing_is_an_error():
    with pytest.raises(CheckpointError, match="missing in the checkpoint: Counter"):
        CallbackList([Counter()]).load_state_dict({})
