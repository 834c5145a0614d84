"""The report of a classifier: scores of each class, confusions, mistakes, calibration."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from base.report.files import write_figure, write_table
from base.report.results import Classified, index_of
from base.report.samples import images_of
from logger.console import WIDTH, shortened

NUM_BINS = 15
MOST_ROWS = 20  # of the table in the console
MOST_COUNTS = 100  # classes whose confusions are written into the JSON
MOST_PAIRS, SHOWN_PAIRS = 20, 5  # of classes that are confused: in the JSON, in the console
NUM_MISTAKES = 25
NAME_WIDTH = 36


def summary(found: Classified, names: Sequence[str]) -> dict[str, Any]:
    """The numbers, ready for JSON.

    The expected calibration error is that of Guo et al. 2017, "On Calibration of Modern Neural
    Networks" (https://arxiv.org/abs/1706.04599): the mean difference of accuracy and confidence in
    15 equal bins of the predicted class's probability, weighted by samples. Means over classes
    leave out those that are neither a target nor predicted.
    """
    support = found.confusion.sum(axis=1)
    total = int(support.sum())
    is_there = (support + found.confusion.sum(axis=0)) > 0
    values: dict[str, Any] = {
        "kind": "classification", "scores": found.scores, "predictions": total,
        "left_out": found.left_out,
        "accuracy": float(np.trace(found.confusion)) / total}
    for name in ("precision", "recall", "f1"):
        values[f"mean_{name}"] = float(getattr(found, name)[is_there].mean())
    bins = calibration(found)
    values["expected_calibration_error"] = None if bins is None else calibration_error(bins)
    values["classes"] = [
        {"class": name, "precision": float(found.precision[index]),
         "recall": float(found.recall[index]), "f1": float(found.f1[index]),
         "support": int(support[index])} for index, name in enumerate(names)]
    values["calibration"] = bins
    values["most_confused"] = most_confused(found.confusion, names)
    if len(names) <= MOST_COUNTS:
        values["confusion"] = found.confusion.tolist()
    return values


def most_confused(confusion: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of true and predicted class with most mistakes, the largest first."""
    wrong = confusion - np.diag(np.diag(confusion))
    places = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [divmod(int(place), len(names)) for place in places]
    return [{"target": names[row], "prediction": names[column], "count": int(wrong[row, column])}
            for row, column in pairs if wrong[row, column]]


def calibration(found: Classified) -> list[dict[str, Any]] | None:
    """The bins of confidence that are not empty; None where no confidence is kept."""
    if found.confidence is None or found.prediction is None:
        return None
    is_right = found.prediction == found.target
    edges = np.linspace(0, 1, NUM_BINS + 1)
    place = np.clip(np.searchsorted(edges, found.confidence, side="left") - 1, 0, NUM_BINS - 1)
    bins = []
    for number in np.unique(place):
        own = place == number
        bins.append({"from": float(edges[number]), "to": float(edges[number + 1]),
                     "count": int(own.sum()), "accuracy": float(is_right[own].mean()),
                     "confidence": float(found.confidence[own].mean(dtype=np.float64))})
    return bins


def calibration_error(bins: list[dict[str, Any]]) -> float:
    """The mean difference of accuracy and confidence, in [0, 1]."""
    total = sum(one["count"] for one in bins)
    return sum(one["count"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / total


def console(values: dict[str, Any]) -> str:
    """A table of the classes in 80 columns; of many those of the lowest F1 that have samples."""
    rows = values["classes"]
    title = ""
    if len(rows) > MOST_ROWS:
        counted = [row for row in rows if row["support"]]
        rows = sorted(counted, key=lambda row: row["f1"])[:MOST_ROWS]
        title = (f"the {len(rows)} classes of {len(values['classes'])} with the lowest F1 "
                 "(report.json has all):\n")
    width = max(map(len, ("class", *(shortened(row["class"], NAME_WIDTH) for row in rows))))
    lines = [f"{'class':<{width}}  precision  recall      f1    support"]
    lines += [f"{shortened(row['class'], NAME_WIDTH):<{width}}  {row['precision']:9.4f}  "
              f"{row['recall']:6.4f}  {row['f1']:6.4f}  {row['support']:9d}" for row in rows]
    lines.append(f"{'mean':<{width}}  {values['mean_precision']:9.4f}  "
                 f"{values['mean_recall']:6.4f}  {values['mean_f1']:6.4f}  "
                 f"{values['predictions']:9d}")
    lines.append(f"accuracy {values['accuracy']:.4f}")
    if values["expected_calibration_error"] is not None:
        lines[-1] += (f", expected calibration error {values['expected_calibration_error']:.4f} "
                      f"({NUM_BINS} bins)")
    lines.append(f"the scores were taken for {values['scores']}")
    if values["most_confused"]:
        pairs = [f"{shortened(pair['target'], NAME_WIDTH)} as "
                 f"{shortened(pair['prediction'], NAME_WIDTH)} ({pair['count']})"
                 for pair in values["most_confused"][:SHOWN_PAIRS]]
        lines += textwrap.wrap(f"most confused: {', '.join(pairs)}", WIDTH)
    if values["left_out"]:
        lines.append(f"left out: {values['left_out']} without a target among the classes, or with "
                     "a score of NaN")
    return title + "\n".join(lines)


def write_files(found: Classified, values: dict[str, Any], folder: Path, *,
                names: Sequence[str], indices: Sequence[int] | None, dataset: Any) -> None:
    """Figures and tables beside ``report.json``.

    Args:
        indices: the data set's index of each sample; None where it is not known.
        dataset: from which the images of mistakes are read again.
    """
    from base.report.figures import calibration_figure, confusion_figure, mistakes_figure

    write_figure(folder / "confusion.png", confusion_figure(found.confusion, names))
    if values["calibration"]:
        write_figure(folder / "calibration.png", calibration_figure(
            values["calibration"], values["expected_calibration_error"]))
    wrong = mistakes(found)
    if wrong is None:
        return
    rows = [(index_of(found, place, indices), names[found.target[place]],  # type: ignore[index]
             names[found.prediction[place]],  # type: ignore[index]
             f"{found.confidence[place]:.6g}") for place in wrong]  # type: ignore[index]
    write_table(folder / "mistakes.csv", ("index", "target", "prediction", "confidence"), rows)
    worst = rows[:NUM_MISTAKES]
    images = images_of(dataset, [row[0] for row in worst]) if worst and indices else None
    if images:
        write_figure(folder / "mistakes.png", mistakes_figure(images, [
            (f"{target} -> {prediction}", f"#{index}  {float(confidence):.4f}")
            for index, target, prediction, confidence in worst]))


def mistakes(found: Classified) -> np.ndarray | None:
    """Which predictions are wrong, the most confident first; None where they are not kept or not
    one for each sample."""
    if found.confidence is None or not found.one_each:
        return None
    wrong = np.flatnonzero(found.prediction != found.target)
    return wrong[np.argsort(-found.confidence[wrong], kind="stable")]


def write_predictions(found: Classified, path: Path, *, names: Sequence[str],
                      indices: Sequence[int] | None) -> str | None:
    """A table of all samples with the probability of each class; or why there is none."""
    if not found.one_each:
        return "there is more than one prediction for a sample"
    if found.probabilities is None:
        return "there are no scores, or too many to keep"
    rows = ((index_of(found, place, indices),
             names[found.target[place]], names[found.prediction[place]],  # type: ignore[index]
             *(f"{value:.6g}" for value in row)) for place, row in enumerate(found.probabilities))
    write_table(path, ("index", "target", "prediction", *(
        f"probability_{name}" for name in names)), rows)
    return None
