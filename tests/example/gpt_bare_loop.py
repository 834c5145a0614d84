"""The example of a GPT as a bare loop. Lies and runs in its project; prints whether the weights of
the checkpoint ``sys.argv[1]`` are those that as many steps of this loop end with."""

import json
import sys

import torch
import torch.nn.functional as F

from data_loader.data_loaders import CodeDataLoader
from model.model import Gpt
from model.optim import WarmupCosine
from utils.rng import set_seed

checkpoint = torch.load(sys.argv[1], weights_only=True)
with open("config.json", encoding="utf-8") as file:
    config = json.load(file)
set_seed(123)
loader = CodeDataLoader(**config["data_loader"]["args"])
model = Gpt(**config["arch"]["args"])
plain = [value for name, value in model.named_parameters()
         if "norm" in name or "embedding" in name or name.endswith(".bias")]
others = [value for value in model.parameters() if all(value is not one for one in plain)]
optimizer = torch.optim.AdamW([{"params": others}, {"params": plain, "weight_decay": 0}],
                              **config["optimizer"]["args"])
num_steps = checkpoint["parts"]["counters"]["step"]
schedule = WarmupCosine(optimizer, total_steps=num_steps, **config["lr_scheduler"]["args"])
for _, (batch,) in zip(range(num_steps), loader, strict=False):
    tokens = batch.long()
    optimizer.zero_grad()
    F.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).backward()
    torch.nn.utils.clip_grad_norm_(  # in this order, on which its last bit depends
        [one for group in optimizer.param_groups for one in group["params"]], 1.0)
    optimizer.step()
    schedule.step()
print("equal:", all(torch.equal(value, checkpoint["state_dict"][name])
                    for name, value in model.state_dict().items()))
