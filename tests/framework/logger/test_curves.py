"""Curves: which values share axes, over what they are drawn, and that odd values do no harm."""

import math
import os
from pathlib import Path
from typing import Any

import pytest

from logger.curves import MAX_LEGEND, MAX_PANELS, base_names, draw_curves, panels_of, x_name
from utils.errors import ConfigError, RunError

Rows = list[dict[str, Any]]


def rows_of(**values: Any) -> Rows:
    """Three epochs with the same values, and the counters of a history."""
    return [{"epoch": epoch, "step": 5 * epoch, "seconds": 1.0, "time": "2026-01-01T00:00:00",
             "memory_mb": 10.0, **values} for epoch in (1, 2, 3)]


def image(path: Path) -> Any:
    """(height, width, 4) values from 0 to 1."""
    from matplotlib.image import imread

    return imread(path)


def test_training_and_validation_of_a_value_share_axes_and_rates_come_last() -> None:
    rows = rows_of(lr_a=0.1, loss=1.0, lr_b=0.2, accuracy=0.5, val_loss=1.1, val_f1=0.3)
    assert list(panels_of({"a": rows}).items()) == [
        ("loss", ["loss", "val_loss"]), ("accuracy", ["accuracy"]), ("f1", ["val_f1"]),
        ("lr", ["lr_a", "lr_b"])]


def test_sets_of_validation_join_the_value_also_one_that_only_they_have() -> None:
    assert base_names(["loss", "val_a_loss", "val_b_loss", "val_a_f1", "val_b_f1"]) == {
        "loss": "loss", "val_a_loss": "loss", "val_b_loss": "loss", "val_a_f1": "f1",
        "val_b_f1": "f1"}


def test_longest_name_of_training_is_the_base() -> None:
    bases = base_names(["loss", "aux_loss", "val_aux_loss", "val_x_aux_loss"])
    assert bases["val_aux_loss"] == bases["val_x_aux_loss"] == "aux_loss"


def test_counters_tables_and_text_are_no_curves() -> None:
    rows = rows_of(loss=1.0, note="x", table=[[1]], flag=True)
    assert panels_of({"a": rows}) == {"loss": ["loss"]}


def test_named_values_only_counters_among_them() -> None:
    rows = rows_of(loss=1.0, val_loss=1.0, accuracy=0.1)
    assert panels_of({"a": rows}, ["val_loss", "seconds"]) == {
        "loss": ["val_loss"], "seconds": ["seconds"]}


def test_unknown_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'val_los'; did you mean 'val_loss'"):
        draw_curves({"a": rows_of(val_loss=1.0)}, tmp_path / "a.png", ["val_los"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("histories", [{}, {"a": []}, {"a": [{"epoch": 1}]}])
def test_history_without_values_is_an_error(tmp_path: Path, histories: dict[str, Rows]) -> None:
    with pytest.raises(RunError, match="no values to draw"):
        draw_curves(histories, tmp_path / "a.png")


def test_x_is_the_step_where_an_epoch_has_several_rows() -> None:
    rows = rows_of(loss=1.0)
    assert x_name({"a": rows}) == "epoch"
    assert x_name({"a": rows, "b": [{**row, "epoch": 1} for row in rows]}) == "step"
    assert x_name({"a": [{"step": 1, "loss": 1.0}]}) == "step"


def test_curve_is_in_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    draw_curves({"a": rows_of(loss=1.0)}, path)
    flat = image(path)
    draw_curves({"a": [row | {"loss": row["epoch"]} for row in rows_of()]}, path)
    assert (image(path) != flat).any()
    assert os.listdir(tmp_path) == ["a.png"]


def test_several_histories_are_drawn_over_each_other(tmp_path: Path) -> None:
    one, two = rows_of(loss=1.0), rows_of(loss=2.0)
    draw_curves({"a": one}, tmp_path / "a.png", ["loss"])
    draw_curves({"a": one, "b": two}, tmp_path / "b.png", ["loss"])
    draw_curves({"a": one, "b": one}, tmp_path / "c.png", ["loss"])
    assert image(tmp_path / "b.png").shape[0] > image(tmp_path / "a.png").shape[0]  # its legend
    assert (image(tmp_path / "b.png") != image(tmp_path / "c.png")).any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, 10**400, 0, -1e-320])
@pytest.mark.filterwarnings("error")
def test_odd_numbers_are_drawn_or_left_out(tmp_path: Path, value: float) -> None:
    rows = [*rows_of(loss=1.0, val_loss=value, lr=value), {"epoch": 4, "step": value, "loss": 2.0}]
    draw_curves({"a": rows, "b": rows_of(loss=value)}, tmp_path / "a.png")
    assert image(tmp_path / "a.png").size


@pytest.mark.parametrize("name", ["$x_{1", "_a", "<b>&", "\x1b[31m\n", "\u4e2d", "x" * 500, " "])
@pytest.mark.filterwarnings("error")
def test_any_text_is_a_label_or_a_name(tmp_path: Path, name: str) -> None:
    rows = rows_of(**{name: 1.0, f"val_{name}": 2.0, f"val_{name}_{name}": 3.0})
    draw_curves({name: rows, "b": rows}, tmp_path / "a.png")
    draw_curves({name: rows}, tmp_path / "a.png", [name])
    assert image(tmp_path / "a.png").size


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_many_values_have_an_end(tmp_path: Path) -> None:
    many = rows_of(**{f"value{index}": 1.0 for index in range(MAX_PANELS + 5)})
    draw_curves({"a": many}, tmp_path / "a.png")
    draw_curves({"a": rows_of(**dict(list(many[0].items())[5:5 + MAX_PANELS]))}, tmp_path / "b.png")
    assert image(tmp_path / "a.png").shape == image(tmp_path / "b.png").shape


@pytest.mark.filterwarnings("error")
def test_legend_of_many_histories_has_an_end(tmp_path: Path) -> None:
    for count in (MAX_LEGEND + 1, 3 * MAX_LEGEND):
        draw_curves({str(index): rows_of(loss=index) for index in range(count)},
                    tmp_path / f"{count}.png")
    shapes = {image(path).shape for path in tmp_path.iterdir()}
    assert len(shapes) == 1


def test_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        draw_curves({"a": rows_of(loss=1.0)}, tmp_path / "absent" / "a.png")


def test_rate_that_ends_at_zero_is_drawn_to_its_end(tmp_path: Path) -> None:
    rows = [{**row, "lr": lr} for row, lr in zip(rows_of(), (0.2, 0.1, 0.0), strict=True)]
    draw_curves({"a": rows}, tmp_path / "a.png", ["lr"])
    pixels = image(tmp_path / "a.png")
    is_blue = (abs(pixels[..., :3] - (0.122, 0.467, 0.706)) < 0.01).all(axis=-1)
    assert is_blue.any(axis=0).nonzero()[0].max() > 0.9 * pixels.shape[1]
