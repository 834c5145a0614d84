"""What the other packages build on: torch and the standard library, one concern a file."""

from utils.device import prepare_device
from utils.metric_tracker import MetricTracker
from utils.util import ensure_dir, inf_loop, read_json, write_json

__all__ = ["MetricTracker", "ensure_dir", "inf_loop", "prepare_device", "read_json", "write_json"]
