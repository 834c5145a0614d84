"""What every project keeps: the life of a run and the classes that projects derive from."""

from base.base_data_loader import BaseDataLoader
from base.base_model import BaseModel
from base.base_trainer import BaseTrainer
from base.callback import Callback
from base.data.in_memory_dataset import InMemoryDataset
from base.data.seeded_dataset import as_fetched

__all__ = ["BaseDataLoader", "BaseModel", "BaseTrainer", "Callback", "InMemoryDataset",
           "as_fetched"]
