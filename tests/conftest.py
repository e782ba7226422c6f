"""What all tests share."""

from __future__ import annotations

import pytest
import structlog


@pytest.fixture(autouse=True)
def _quiet_log():
    """Let the log's lines of a test be kept by pytest, not printed."""
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()], logger_factory=structlog.PrintLoggerFactory())
    yield
    structlog.reset_defaults()
