"""For all tests of the template, not for those of projects."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """A warning that the framework causes is an error."""
    config.addinivalue_line("filterwarnings",
                            "error:::(base|logger|parse_config|tests|tools|utils)")
