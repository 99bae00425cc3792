"""What a launcher told, for tests."""

import logging
import re
import time


class LogLines(logging.Handler):
    """A logger that keeps its lines, with their times."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[float, str]] = []
        self.logger = logging.Logger("test")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((time.monotonic(), record.getMessage()))

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def lines_with(self, text: str) -> int:
        return sum(text == line for _, line in self.lines)

    def wait_for(self, pattern: str, seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)
