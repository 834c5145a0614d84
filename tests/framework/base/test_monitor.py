import math

import pytest

from base.monitor import Monitor, check_name
from utils.errors import ConfigError


def run(monitor, values):
    return [monitor.update({"epoch": epoch, "loss": value})
            for epoch, value in enumerate(values, start=1)]


@pytest.mark.parametrize(("setting", "expected"), [
    ("min loss", [True, True, False, True]), ("max loss", [True, False, True, False])])
def test_better_is_less_or_more_as_the_setting_says(setting, expected):
    assert run(Monitor(setting), [3.0, 2.0, 4.0, 1.0]) == expected


@pytest.mark.parametrize("setting", ["min loss", "max loss"])
def test_tie_is_not_an_improvement(setting):
    assert run(Monitor(setting), [1.0, 1.0]) == [True, False]


@pytest.mark.parametrize(("setting", "values"), [
    ("min loss", [1.0, 0.9, 0.89, 0.5]), ("max loss", [0.5, 0.6, 0.61, 1.0])])
def test_gain_must_exceed_min_delta(setting, values):
    assert run(Monitor(setting, min_delta=0.2), values) == [True, False, False, True]


def test_slow_gain_counts_from_the_best_and_not_from_the_epoch_before():
    assert run(Monitor("min loss", min_delta=0.2), [1.0, 0.9, 0.79]) == [True, False, True]


@pytest.mark.parametrize("setting", ["min loss", "max loss"])
def test_nan_is_never_an_improvement(setting):
    monitor = Monitor(setting)
    assert run(monitor, [math.nan, 1.0, math.nan]) == [False, True, False]
    assert monitor.best == 1.0


@pytest.mark.parametrize(("setting", "best", "worse"), [
    ("min loss", -math.inf, 3.0), ("max loss", math.inf, 3.0),
    ("min loss", 3.0, math.inf), ("max loss", 3.0, -math.inf)])
def test_infinities_are_ordered_like_other_values(setting, best, worse):
    assert run(Monitor(setting), [best, worse]) == [True, False]


@pytest.mark.parametrize(("setting", "worst"), [("min loss", math.inf), ("max loss", -math.inf)])
def test_worst_infinity_is_no_improvement_over_nothing(setting, worst):
    assert run(Monitor(setting), [worst]) == [False]


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_run_ends_after_exactly_patience_epochs_without_improvement(patience):
    monitor = Monitor("min loss", patience=patience)
    stops = []
    for value in [1.0, *[2.0] * patience]:
        run(monitor, [value])
        stops.append(monitor.should_stop)
    assert stops == [False] * patience + [True]


def test_improvement_gives_patience_back():
    monitor = Monitor("min loss", patience=2)
    run(monitor, [3.0, 4.0, 2.0, 4.0])
    assert not monitor.should_stop


@pytest.mark.parametrize("patience", [0, -1])
def test_patience_of_zero_or_less_never_stops(patience):
    monitor = Monitor("min loss", patience=patience)
    run(monitor, [1.0, *[2.0] * 50])
    assert not monitor.should_stop


def test_off_has_no_best_and_never_stops():
    monitor = Monitor("off", patience=1)
    assert run(monitor, [3.0, 2.0, 1.0]) == [False] * 3
    assert not monitor.should_stop and monitor.metric is None


@pytest.mark.parametrize("setting", ["least loss", "min", "", "minimum loss"])
def test_other_words_are_reported_and_mean_off(setting, caplog):
    assert Monitor(setting).mode == "off"
    assert repr(setting) in caplog.text


def test_epoch_without_the_value_counts_for_nothing():
    monitor = Monitor("min val_loss", patience=1)
    assert run(monitor, [1.0, 2.0, 3.0]) == [False] * 3
    assert not monitor.should_stop and not monitor.has_best


def test_best_and_patience_are_restored():
    before = Monitor("min loss", patience=3)
    run(before, [1.0, 2.0, 2.0])
    after = Monitor("min loss", patience=3)
    after.load_state_dict(before.state_dict())
    assert run(after, [1.5]) == [False]
    assert (after.best, after.best_epoch) == (1.0, 1) and after.should_stop


@pytest.mark.parametrize("setting", ["max loss", "min val_loss", "off"])
def test_best_of_another_metric_is_not_taken_over(setting, caplog):
    before = Monitor("min loss")
    run(before, [1.0, 2.0])
    after = Monitor(setting)
    fresh = after.best
    after.load_state_dict(before.state_dict())
    assert (after.best, after.epochs_without_improvement) == (fresh, 0)
    assert "min loss" in caplog.text and setting in caplog.text


def test_forgotten_best_gives_way_to_any_value():
    monitor = Monitor("min loss", patience=1)
    run(monitor, [1.0, 2.0])
    monitor.start_anew()
    assert not monitor.has_best and not monitor.should_stop and run(monitor, [5.0]) == [True]


VALID = ["val_loss", "val_F1_0", "val_F1_1"]


@pytest.mark.parametrize(("name", "valid_names", "may_add"), [
    ("loss", [], False), ("lr", VALID, False), ("val_F1_1", VALID, False),
    ("val_other", VALID, True), ("val_other", None, False), ("my_own", VALID, False)])
def test_name_that_will_or_may_be_in_the_log_is_taken(name, valid_names, may_add):
    check_name(name, ["loss", "lr"], valid_names, may_add=may_add)


@pytest.mark.parametrize(("name", "valid_names", "may_add", "hint"), [
    ("val_F1", VALID, False, "val_F1_0"), ("val_acc", VALID, False, "loss, lr, val_loss"),
    ("val_loss", [], False, "loss, lr"), ("val_los", VALID, True, "did you mean 'val_loss'"),
    ("los", None, True, "did you mean 'loss'")])
def test_name_that_will_not_be_in_the_log_is_refused(name, valid_names, may_add, hint):
    with pytest.raises(ConfigError, match=rf"watches '{name}', but the epoch's log will have.*"
                                          f"{hint}"):
        check_name(name, ["loss", "lr"], valid_names, may_add=may_add)
