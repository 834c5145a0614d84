"""What every project keeps: the life of a run and the classes that projects derive from."""

from base.base_data_loader import BaseDataLoader
from base.base_model import BaseModel
from base.base_trainer import BaseTrainer
from base.callback import Callback

__all__ = ["BaseDataLoader", "BaseModel", "BaseTrainer", "Callback"]
