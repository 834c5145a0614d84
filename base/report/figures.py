"""The figures of a report, as matplotlib Figures that no window shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from logger.console import shortened

MOST_CELLS = 20  # classes whose counts are written into the cells
MOST_POINTS = 20_000
MOST_TICKS = 25
NAME_LENGTH = 16
PER_ROW = 5
BLUE, GREY, RED = "#2f6db5", "#888888", "#c0392b"


def confusion_figure(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Counts, rows true and columns predicted, coloured by their share of the row."""
    num_classes = len(names)
    has_text = num_classes <= MOST_CELLS
    side = max(0.52 * num_classes, 2.4) if has_text else 9.0
    margin = 0.6 + 0.09 * max(len(shortened(name, NAME_LENGTH)) for name in names)
    figure = Figure(figsize=(side + margin + 1.7, side + margin + 0.5), dpi=110,
                    layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the row", fraction=0.046, pad=0.03)
    ticks = list(range(0, num_classes, -(-num_classes // MOST_TICKS)))
    labels = [shortened(names[index], NAME_LENGTH) for index in ticks]
    is_long = max(map(len, labels)) > 3
    axes.set_xticks(ticks, labels, rotation=90 if is_long else 0, parse_math=False)
    axes.set_yticks(ticks, labels, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if has_text:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                axes.text(column, row, _count(int(count)), ha="center", va="center", fontsize=8,
                          color="white" if shares[row, column] > 0.5 else "black")
    return figure


def mistakes_figure(images: Sequence[np.ndarray], titles: Sequence[tuple[str, str]]) -> Figure:
    """A sheet of images, (height, width, 1 or 3) in [0, 1], each with two lines above it."""
    rows = -(-len(images) // PER_ROW)
    figure = Figure(figsize=(10, 2.35 * rows + 0.5), dpi=110, layout="constrained")
    for number, (image, (first, second)) in enumerate(zip(images, titles, strict=True), start=1):
        axes = figure.add_subplot(rows, PER_ROW, number)
        axes.imshow(image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=1,
                    interpolation="nearest" if max(image.shape[:2]) < 100 else "antialiased")
        axes.set_title(f"{shortened(first, 28)}\n{second}", fontsize=9, parse_math=False)
        axes.axis("off")
    figure.suptitle("target -> prediction, index and confidence", fontsize=9, color=GREY)
    return figure


def calibration_figure(bins: Sequence[dict[str, Any]], error: float) -> Figure:
    """A reliability diagram, and below it how many predictions are in each bin."""
    figure = Figure(figsize=(5.2, 6), dpi=110, layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    left = [one["from"] for one in bins]
    width = [one["to"] - one["from"] for one in bins]
    common = {"width": width, "align": "edge", "edgecolor": "white"}
    axes.bar(left, [one["accuracy"] for one in bins], color=BLUE, label="accuracy", **common)
    axes.hlines([one["confidence"] for one in bins], left, [one["to"] for one in bins], color=RED,
                linewidth=2, label="mean confidence")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy",
             title=f"expected calibration error {error:.4f}")
    axes.legend(loc="upper left", fontsize=8)
    counts.bar(left, [one["count"] for one in bins], color=GREY, **common)
    counts.set(xlabel="confidence", ylabel="predictions", yscale="log")
    counts.set_ylim(bottom=0.5)  # a bar of 1 can be seen
    return figure


def scatter_figure(target: np.ndarray, prediction: np.ndarray) -> Figure:
    """Predictions against targets, (samples, values); of many, some that are spread evenly."""
    figure = Figure(figsize=(6, 6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    step = -(-target.size // MOST_POINTS)
    shown, guessed = target.ravel()[::step], prediction.ravel()[::step]
    colours = np.arange(target.size)[::step] % target.shape[1]
    is_few = 1 < target.shape[1] <= 10
    points = axes.scatter(shown, guessed, s=9, alpha=0.5 if len(shown) < 2000 else 0.2,
                          linewidths=0, **({"c": colours, "cmap": "tab10", "vmin": 0, "vmax": 9}
                                           if is_few else {"color": BLUE}))
    if is_few:
        handles, _ = points.legend_elements(num=list(range(target.shape[1])), alpha=1)
        axes.legend(handles, [str(index) for index in range(target.shape[1])], title="value",
                    fontsize=8)
    finite = np.concatenate([shown[np.isfinite(shown)], guessed[np.isfinite(guessed)]])
    if len(finite):
        ends = [float(finite.min()), float(finite.max())]
        axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1)
    axes.set(xlabel="target", ylabel="prediction")
    if step > 1:
        axes.set_title(f"{len(shown):,} of {target.size:,} values", fontsize=9)
    return figure


def _count(count: int) -> str:
    """At most 5 characters."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= max(size, 10**5):
            return f"{count / size:.3g}{unit}"
    return str(count)
