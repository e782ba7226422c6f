"""The log. As a library it is the standard library's `logging`, quiet until somebody configures that.

Fields beside the event are `extra` attributes of the record. Only the program (`configure`) gives it a form: one
JSON object a line, or on a terminal lines for a person.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.stdlib import BoundLogger, ExtraAdder, ProcessorFormatter, filter_by_level, render_to_log_kwargs

__all__ = ["configure", "get_logger"]


#: Loggers of others that have a line for what is no news: here, for each request to the model.
_QUIET = ("httpx2",)


def get_logger(name: str) -> BoundLogger:
    """Return the logger of a part, `gateway_trio.NAME`."""
    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"gateway_trio.{name}"),
        processors=[structlog.contextvars.merge_contextvars, filter_by_level, render_to_log_kwargs],
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


def configure(level: int = logging.INFO) -> None:
    """Log to stderr. For programs only: this is process-wide."""
    terminal = sys.stderr.isatty()
    last: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    traceback: list[Any] = [] if terminal else [structlog.processors.format_exc_info]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=not terminal),
                ExtraAdder(),
            ],
            processors=[ProcessorFormatter.remove_processors_meta, *traceback, last],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
