"""The example model, losses and metrics."""
