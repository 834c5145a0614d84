"""Commands beside train.py and test.py: ``python -m tools.NAME``."""
