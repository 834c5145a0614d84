"""What the template costs, measured against a bare loop: ``python -m benchmarks``."""
