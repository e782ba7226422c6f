"""The log. As a library it is the standard library's `logging`, quiet until somebody configures that.

Fields beside the event are `extra` attributes of the record. What belongs to a turn or an exec says so on each
line (`bind`). Only the program (`configure`) gives the log a form: one JSON object a line, or on a terminal lines
for a person; and bounds it, as `core.log_bounds` says.
"""

from __future__ import annotations

import copy
import logging
import math
import sys
import time
from typing import Any

import structlog
from structlog.stdlib import BoundLogger, ExtraAdder, ProcessorFormatter, filter_by_level, render_to_log_kwargs

from gateway_trio.core.log_bounds import Floods, bounded

__all__ = ["bind", "configure", "get_logger"]


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


def bind(**names: str | None) -> None:
    """Let each line of this task, and of those that it starts, say whose work it is.

    `names` are of `session`, `turn`, `exec` and `principal`; None for one that there is not. What the task
    inherited of these, from whatever started it, is forgotten.
    """
    structlog.contextvars.unbind_contextvars(*_OF_WORK)
    structlog.contextvars.bind_contextvars(**{name: value for name, value in names.items() if value is not None})


_OF_WORK = ("session", "turn", "exec", "principal")


class _BoundedHandler(logging.StreamHandler[Any]):
    """Writes what the bounds let through, and how much they did not."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._floods = Floods()

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        self._tell(now)
        # A library's template, not the text made of it: that may be another each time.
        left_out = self._floods.take(record.name, str(record.msg), str(getattr(record, "principal", "")), now)
        if left_out is None:
            return
        if left_out:
            record = copy.copy(record)
            record.left_out = left_out
        super().emit(record)

    def close(self) -> None:
        """Tell all counts that nobody has been told."""
        self._tell(math.inf)
        super().close()

    def _tell(self, now: float) -> None:
        for key, count in self._floods.due(now).items():
            told = logging.LogRecord("gateway_trio.log", logging.WARNING, __file__, 0, "left out", (), None)
            told.of, told.left_out = key, count
            super().emit(told)


def _bound(_: Any, __: str, line: Any) -> Any:
    return bounded(line)


def configure(level: int = logging.INFO) -> None:
    """Log to stderr. For programs only: this is process-wide."""
    terminal = sys.stderr.isatty()
    # A plain traceback everywhere: a pretty one shows the values of variables, tokens too.
    last: Any = structlog.processors.JSONRenderer()
    if terminal:
        last = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    handler = _BoundedHandler()
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,  # also for what an agent's own libraries say
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=not terminal),
                ExtraAdder(),
            ],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _bound,
                last,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
