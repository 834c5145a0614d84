"""Training of two networks against each other, each with an optimizer of its own."""

from typing import Any

import torch
from torch import Tensor

from data_loader.data_loaders import MEAN, STD
from trainer.trainer import Trainer as PlainTrainer

NUM_SAMPLES = 64  # images in the grid


class Trainer(PlainTrainer):
    """Trains the discriminator, then the generator on each batch; shows samples each epoch."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fixed_noise = self._seeded_noise(NUM_SAMPLES)

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        """Trains, shows samples, validates (with a split); returns the log."""
        self.model.train()
        for batch_idx, batch in self.train_batches():
            self._train_step(batch, batch_idx)
        with self.evaluation():
            samples = self.model(self.fixed_noise) * STD + MEAN  # (NUM_SAMPLES, 1, 28, 28), 0 to 1
        self.writer.add_images("samples", samples)
        return {**self.train_metrics.result(), **self.validate()}

    def _train_step(self, batch: Any, batch_idx: int) -> None:
        """One step of each optimizer."""
        real, _ = self.split_batch(batch)
        fake = self.model(torch.randn(len(real), self.model.num_noise, device=self.device))

        self.zero_grad("discriminator")
        d_loss = self._d_loss(real, fake.detach())
        self.backward(d_loss)
        self.step("discriminator")

        self.zero_grad("generator")
        g_loss = self._g_loss(fake)
        self.backward(g_loss)
        self.step("generator")

        self.train_metrics.update("d_loss", d_loss, len(real))
        self.train_metrics.update("g_loss", g_loss, len(real))

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        """The losses of both on images that neither has seen; the noise is the same each time."""
        with self.evaluation():
            for batch_idx, batch in self.valid_batches():
                real, _ = self.split_batch(batch)
                fake = self.model(self._seeded_noise(len(real), seed=1 + batch_idx))
                self.valid_metrics.update("d_loss", self._d_loss(real, fake), len(real))
                self.valid_metrics.update("g_loss", self._g_loss(fake), len(real))
        return self.valid_metrics.result()

    def _d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Is low where real images score high, and made ones low; 2 ln 2 of one who guesses."""
        real_scores, fake_scores = self.model.score(real), self.model.score(fake)
        return (self.criterion(real_scores, torch.ones_like(real_scores))
                + self.criterion(fake_scores, torch.zeros_like(fake_scores)))

    def _g_loss(self, fake: Tensor) -> Tensor:
        """Is low where made images score high."""
        scores = self.model.score(fake)
        return self.criterion(scores, torch.ones_like(scores))

    def _seeded_noise(self, num_samples: int, seed: int = 0) -> Tensor:
        """(num_samples, num_noise) that is the same on every device and in every run."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(num_samples, self.model.num_noise, generator=generator)
        return noise.to(self.device)
