import logging
import math

import pytest

from base.monitor import Monitor


def run(monitor, values):
    return [monitor.update({"loss": value}) for value in values]


@pytest.mark.parametrize(("setting", "expected"), [
    ("min loss", [True, True, False, True]), ("max loss", [True, False, True, False])])
def test_better_is_less_or_more_as_the_setting_says(setting, expected):
    assert run(Monitor(setting), [3.0, 2.0, 4.0, 1.0]) == expected


@pytest.mark.parametrize("setting", ["min loss", "max loss"])
def test_tie_is_not_an_improvement(setting):
    """D13"""
    assert run(Monitor(setting), [1.0, 1.0]) == [True, False]


@pytest.mark.parametrize(("setting", "values"), [
    ("min loss", [1.0, 0.9, 0.89, 0.5]), ("max loss", [0.5, 0.6, 0.61, 1.0])])
def test_gain_must_exceed_min_delta(setting, values):
    """D13"""
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
    """D12"""
    monitor = Monitor("min loss", patience=patience)
    stops = []
    for value in [1.0, *[2.0] * patience]:
        monitor.update({"loss": value})
        stops.append(monitor.should_stop)
    assert stops == [False] * patience + [True]


def test_improvement_gives_patience_back():
    """D12"""
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


def test_missing_name_is_a_warning_once_that_lists_the_names(caplog):
    monitor = Monitor("min val_loss", patience=1)
    assert run(monitor, [1.0, 2.0, 3.0]) == [False] * 3
    assert len(caplog.records) == 1 and caplog.records[0].levelno == logging.WARNING
    assert "'val_loss'" in caplog.text and "['loss']" in caplog.text
    assert not monitor.should_stop


def test_best_and_patience_are_restored():
    """D24"""
    before = Monitor("min loss", patience=3)
    run(before, [1.0, 2.0, 2.0])
    after = Monitor("min loss", patience=3)
    after.load_state_dict(before.state_dict())
    assert run(after, [1.5]) == [False]
    assert after.best == 1.0 and after.should_stop


@pytest.mark.parametrize("setting", ["max loss", "min val_loss", "off"])
def test_best_of_another_metric_is_not_taken_over(setting, caplog):
    """D29"""
    before = Monitor("min loss")
    run(before, [1.0, 2.0])
    after = Monitor(setting)
    fresh = after.best
    after.load_state_dict(before.state_dict())
    assert (after.best, after.epochs_without_improvement) == (fresh, 0)
    assert "min loss" in caplog.text and setting in caplog.text
