"""Progress of long work: a live line on a terminal, calm lines in a log file, with the time left."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO


def readable_time(seconds: float) -> str:
    """'48 s', '3 min 20 s', '5 h 12 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


_LOG = logging.getLogger("hessketch")
_NOTES: list[str] = []  # of this process, in order


def note(text: str) -> None:
    """What a log and a record should say of deep inside a computation, which has no `Progress` and needs none.

    A warning of the logger `hessketch`: a job's log shows each text once (`notes_said`), a notebook as it is set up.
    """
    _NOTES.append(text)
    _LOG.warning(text)


def notes(since: int = 0) -> list[str]:
    """Every note of this process, from the one of that number on."""
    return _NOTES[since:]


class _Said(logging.Handler):
    """Hands each text on once."""

    def __init__(self, say: Callable[[str], None]):
        super().__init__()
        self._say = say
        self._texts: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._texts:
            self._texts.add(text)
            self._say(text)


@contextmanager
def notes_said(say: Callable[[str], None]) -> Iterator[None]:
    """While it is open each text that is noted is said, once."""
    handler = _Said(say)
    _LOG.addHandler(handler)
    try:
        yield
    finally:
        _LOG.removeHandler(handler)


class Progress:
    """Where a job is. Lines go to `log` every `calm_seconds`; a terminal on stderr shows a line that is overwritten."""

    def __init__(self, job: str, log: str | Path | None = None, calm_seconds: float = 15.0):
        self.job = job
        self._log: TextIO | None = None
        if log is not None:
            Path(log).parent.mkdir(parents=True, exist_ok=True)
            self._log = open(log, "a", buffering=1)  # noqa: SIM115 (lives as long as the job)
        self._terminal = sys.stderr if sys.stderr.isatty() else None
        self._calm_seconds = calm_seconds

    def say(self, text: str) -> None:
        """One line that stays: in the log, with the time of day, or without a log on stderr."""
        if self._logged(text):
            self._show(text)
        else:
            self._clear()
            print(f"{self.job}: {text}", file=sys.stderr)

    def _logged(self, text: str) -> bool:
        """Whether there is a log and it took the line; on a full disk it is given up for stderr."""
        log, self._log = self._log, None
        if log is None:
            return False
        try:
            log.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        except OSError:
            with suppress(OSError):
                log.close()
            return False
        self._log = log
        return True

    def _clear(self) -> None:
        if self._terminal is not None:
            self._terminal.write("\r\033[K")
            self._terminal.flush()

    def _show(self, text: str) -> None:
        if self._terminal is not None:
            self._terminal.write(f"\r\033[K{self.job}: {text}"[:180])
            self._terminal.flush()

    def stage(self, name: str) -> Callable[[int, int], None]:
        """A callback (done, total) that reports a stage such as 'epoch' or 'Lanczos step'."""
        start = time.monotonic()
        last = {"log": start, "terminal": 0.0}

        def report(done: int, total: int) -> None:
            now = time.monotonic()
            finished = done >= total
            if not finished and now - last["terminal"] < 0.2:
                return
            left = (now - start) / max(done, 1) * (total - done)
            text = f"{name} {done}/{total}, " + (
                f"took {readable_time(now - start)}" if finished else f"{readable_time(left)} left"
            )
            last["terminal"] = now
            if finished or (self._log is not None and now - last["log"] >= self._calm_seconds):
                last["log"] = now
                self.say(text)
            else:
                self._show(text)

        return report

    def close(self) -> None:
        """Clears the live line and closes the log."""
        self._clear()
        if self._log is not None:
            self._log.close()
