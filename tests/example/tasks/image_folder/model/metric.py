"""None of one's own: torchmetrics has them."""
