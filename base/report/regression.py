"""The report of a regression: R2, mean errors, the largest ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from base.report.files import write_figure, write_table
from base.report.results import Measured, index_of

MOST_OUTPUTS = 20  # values of a sample that are told one by one
NUM_LARGEST = 1000


def summary(found: Measured) -> dict[str, Any]:
    """The numbers, ready for JSON: R2 (a mean over up to 20 values of a sample; of more, over all
    values together), mean absolute error, root of the mean squared error. R2 is None where all
    targets are equal."""
    num_outputs = found.target.shape[1]
    each = [_errors(found.target[:, index], found.prediction[:, index])
            for index in range(num_outputs)] if num_outputs <= MOST_OUTPUTS else []
    values = _errors(found.target, found.prediction)
    known = [one["r2"] for one in each if one["r2"] is not None]
    if each:
        values["r2"] = float(np.mean(known)) if known else None
    return {"kind": "regression", "predictions": len(found.target), "left_out": found.left_out,
            **values, **({"outputs": each} if num_outputs > 1 and each else {})}


def _errors(target: np.ndarray, prediction: np.ndarray) -> dict[str, float | None]:
    target = target.astype(np.float64)
    error = prediction.astype(np.float64) - target
    spread = float(((target - target.mean()) ** 2).sum()) if np.ptp(target) else 0.0
    squares = float((error ** 2).sum())
    values = {"r2": 1 - squares / spread if spread else None,
              "mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error ** 2).mean()))}
    return {name: value if value is not None and np.isfinite(value) else None
            for name, value in values.items()}


def console(values: dict[str, Any]) -> str:
    """The numbers in 80 columns, and below them those of each value."""
    rows = [("", values), *((str(index), one)
                            for index, one in enumerate(values.get("outputs", ())))]
    lines = ["value          R2         MAE        RMSE" if len(rows) > 1 else
             "               R2         MAE        RMSE"]
    for name, one in rows:
        label = name or ("all" if len(rows) > 1 else "")
        lines.append(f"{label:<5}" + "".join(
            f"{'-' if one[key] is None else format(one[key], '.5g'):>12}"
            for key in ("r2", "mae", "rmse")))
    if values["left_out"]:
        lines.append(f"left out: {values['left_out']} samples with a NaN")
    return "\n".join(lines)


def write_files(found: Measured, folder: Path, *, indices: Sequence[int] | None) -> None:
    """A figure and a table of the largest errors beside ``report.json``.

    Args:
        indices: the data set's index of each sample; None where it is not known.
    """
    from base.report.figures import scatter_figure

    write_figure(folder / "scatter.png", scatter_figure(found.target, found.prediction))
    error = found.prediction.astype(np.float64) - found.target
    largest = np.argsort(-np.abs(error), axis=None, kind="stable")[:NUM_LARGEST]
    num_outputs = error.shape[1]
    rows = [(index_of(found, place, indices), *([value] if num_outputs > 1 else []),
             value_text(found.target[place, value]), value_text(found.prediction[place, value]),
             f"{error[place, value]:.9g}")
            for place, value in (divmod(int(flat), num_outputs) for flat in largest)]
    write_table(folder / "largest_errors.csv", (
        "index", *(["value"] if num_outputs > 1 else []), "target", "prediction", "error"), rows)


def write_predictions(found: Measured, path: Path, *, indices: Sequence[int] | None) -> None:
    """A table of all samples."""
    names = [f"_{index}" for index in range(found.target.shape[1])]
    names = names if len(names) > 1 else [""]
    rows = ((index_of(found, place, indices), *map(value_text, found.target[place]),
             *map(value_text, found.prediction[place])) for place in range(len(found.target)))
    write_table(path, ("index", *(f"target{name}" for name in names),
                       *(f"prediction{name}" for name in names)), rows)


def value_text(value: Any) -> str:
    """With all digits that the number has."""
    return f"{float(value):{'.9g' if value.dtype == np.float32 else '.17g'}}"
