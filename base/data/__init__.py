"""Which samples come when, and how a batch of them is read."""
