"""442 diabetes patients, a row each, of scikit-learn."""

from typing import Any

import numpy as np
import pandas as pd

from base import BaseDataLoader, InMemoryDataset
from utils.errors import RunError

TARGET = "target"
PARTS = {"train": slice(0, 264), "valid": slice(264, 353), "test": slice(353, 442)}  # rows


class DiabetesDataLoader(BaseDataLoader):
    """Batches of (batch, 10) float32 features and (batch,) float32 progress of the disease.

    The features have mean 0 and standard deviation 1 over the training rows; nothing of the other
    rows takes part in that. The progress is in its own unit, from 25 to 346.

    Args:
        part: "train" or "valid".
        training: False, as test.py asks for, takes the test rows instead.
        options: see ``BaseDataLoader``.
    """

    def __init__(self, part: str, batch_size: int, shuffle: bool = False, num_workers: int = 0,
                 training: bool = True, **options: Any) -> None:
        table = read_table()
        train = table.iloc[PARTS["train"]]
        mine = table.iloc[PARTS[part if training else "test"]]
        rows = ((mine - train.mean()) / train.std()).drop(columns=TARGET)
        dataset = InMemoryDataset(rows.to_numpy(np.float32), mine[TARGET].to_numpy(np.float32))
        super().__init__(dataset, batch_size, shuffle, num_workers=num_workers, **options)


def read_table() -> pd.DataFrame:
    """All patients in an order that was drawn once: age, sex, bmi, ... and the target.

    Raises:
        RunError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_diabetes
    except ImportError as error:
        raise RunError("the data is part of scikit-learn: pip install scikit-learn") from error
    return load_diabetes(as_frame=True, scaled=False).frame.sample(frac=1, random_state=0)
