"""What a run tells: log, TensorBoard, history of epochs."""

from logger.logger import setup_logging
from logger.visualization import TensorboardWriter, WriterTensorboard

__all__ = ["TensorboardWriter", "WriterTensorboard", "setup_logging"]
