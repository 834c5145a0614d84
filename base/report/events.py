"""The report of a classifier for TensorBoard: confusions, precision against recall."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from base.report.results import Classified
from logger.visualization import TensorboardWriter

MOST_CURVES = 20  # classes


def write_events(found: Classified, writer: TensorboardWriter, name: str,
                 names: Sequence[str]) -> None:
    """The confusion matrix as an image, and the curve of each class against all others; of more
    than 20 classes, of those with the lowest F1 that have samples.

    Args:
        writer: at the step of the model.
        name: of checkpoint and data, with which all tags begin.
        names: of the classes.
    """
    from base.report.figures import confusion_figure

    if not writer.enabled:
        return
    writer.add_image(f"{name}/confusion", _pixels(confusion_figure(found.confusion, names)),
                     dataformats="HWC")
    if found.probabilities is None or found.target is None:
        return
    support = found.confusion.sum(axis=1)
    order = [int(one) for one in np.argsort(found.f1, kind="stable") if support[one]]
    for index in sorted(order[:MOST_CURVES]):
        label = str(index) if names[index] == str(index) else f"{index}_{names[index]}"
        writer.add_pr_curve(f"{name}/pr/{label}", found.target == index,
                            # rounding makes some larger than 1, which TensorBoard leaves out
                            found.probabilities[:, index].clip(0, 1))


def _pixels(figure: Any) -> np.ndarray:
    """(height, width, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3]
