"""What several processes cost: two on this machine, against a bare loop with torch's own
DistributedDataParallel, or fully_shard. As a script, torchrun starts it."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from base import BaseDataLoader, InMemoryDataset
from benchmarks.bare import TokenLoop, next_token_loss, plain_trainer
from benchmarks.data import TokenTrainer
from benchmarks.timing import extremes, in_turns, noise, ratios_of
from utils.devices.parallel import place_model
from utils.devices.processes import is_main_process, joined

BATCH = 16  # of each process


def processes(rounds: int) -> dict[str, Any]:
    """(k) An epoch of a small Transformer in two processes with a thread each."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m",
         "benchmarks.processes", str(rounds)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).resolve().parent.parent, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(done.stdout.splitlines()[-1])


class DistributedLoop(TokenLoop):
    """The same by hand, as torch's documentation has it."""

    def __init__(self, blocks: torch.Tensor, *, is_sharded: bool) -> None:
        super().__init__(blocks, BATCH)
        if is_sharded:
            for layer in self.model.layers.layers:
                fully_shard(layer)
            fully_shard(self.model)
        else:
            self.model: Any = nn.parallel.DistributedDataParallel(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)


def _measured(rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(0, 96, (1600, 64), dtype=torch.uint8, generator=generator)
    result: dict[str, Any] = {}
    for strategy in ("auto", "ddp", "fsdp2"):
        bare = DistributedLoop(blocks[:len(blocks) // 2], is_sharded=strategy == "fsdp2")
        model = place_model(TokenLoop(blocks, BATCH).model, torch.device("cpu"), [],
                            strategy=strategy)
        with tempfile.TemporaryDirectory() as folder:
            loader = BaseDataLoader(InMemoryDataset(blocks, transform=torch.Tensor.long,
                                                    is_random=False), BATCH, shuffle=True)
            trainer = plain_trainer(
                folder, model, next_token_loss, torch.optim.AdamW(model.parameters(), lr=1e-3),
                loader, kind=TokenTrainer, verbosity=0)
            times = in_turns(rounds, trainer, 5, {"bare": bare.steps})
        ratios = ratios_of(times["template"], times["bare"])
        result |= {f"{strategy}: ratio of times": statistics.median(ratios),
                   f"{strategy}: its lowest and highest round": extremes(ratios),
                   f"{strategy}: noise of the bare loop": noise(times["bare"])}
    return result


if __name__ == "__main__":
    with joined(on_gpu=False):
        measured = _measured(int(sys.argv[1]))
        if is_main_process():
            print(json.dumps(measured))
