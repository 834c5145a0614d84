"""Services that follow your runs beside TensorBoard, named by ``trainer.trackers``: a class each.

docs/watch.md has one for MLflow.
"""

from logger.trackers import Tracker  # noqa: F401  (what yours derive from)
