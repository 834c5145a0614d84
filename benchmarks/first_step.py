"""Runs ``train.py -c config.json`` and ends after the first optimizer step."""

import os
import runpy
import sys
import tempfile
from typing import Any


def main() -> None:
    folder = tempfile.mkdtemp()

    def stop_after_step(self: Any, batch: Any, batch_idx: int) -> Any:
        step(self, batch, batch_idx)
        os._exit(0)

    from trainer import Trainer

    step = Trainer._train_step
    setattr(Trainer, "_train_step", stop_after_step)  # noqa: B010
    sys.argv = ["train.py", "-c", "config.json", f"trainer.save_dir={folder}"]
    runpy.run_path("train.py", run_name="__main__")


if __name__ == "__main__":
    main()
