"""What people see while a study runs: one line, kept up to date on a terminal, else printed now and then."""

import shutil
import sys
import time

__all__ = ["Board", "duration"]

QUIET_SECONDS = 60.0
"""Without a terminal a line is printed at each ending, and otherwise this rarely."""


def duration(seconds: float) -> str:
    """Return a length of time for people: 42 s, 7 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Board:
    """Counts trials and epochs and knows how long the rest will take at the pace so far."""

    def __init__(self, trials: int, epochs: int, what: str = "trials") -> None:
        self.trials, self.epochs, self.what = trials, epochs, what
        self.endings = {"COMPLETE": 0, "PRUNED": 0, "FAILED": 0}
        self.running: dict[int, str] = {}
        self.best: tuple[float, int] | None = None
        self.done, self.started, self.printed = 0, time.monotonic(), 0.0
        self.terminal = sys.stderr.isatty()

    def catch_up(self, number: int, state: str, dice: float | None, steps: int) -> None:
        """Count a trial of `steps` epochs that ended in an earlier start."""
        self.endings[state] += 1
        self.epochs -= steps
        if dice is not None and (self.best is None or dice > self.best[0]):
            self.best = (dice, number)

    def epoch(self, number: int, where: str, dice: float) -> None:
        """Note an epoch of trial `number`; `where` says which, `dice` is its best so far."""
        self.done += 1
        self.running[number] = where
        if self.best is None or dice > self.best[0]:
            self.best = (dice, number)
        self.show()

    def start(self, number: int) -> None:
        """Note that a trial has started."""
        self.running[number] = "starting"
        self.show()

    def end(self, number: int, state: str, epochs_saved: int = 0) -> None:
        """Note how a trial ended, and how many epochs it will not need."""
        self.running.pop(number, None)
        self.endings[state] += 1
        self.epochs -= epochs_saved
        self.show(force=True)

    def cut_off(self, number: int) -> None:
        """Note that a trial was ended without a verdict."""
        self.running.pop(number, None)

    def line(self) -> str:
        """Return the line."""
        ended = sum(self.endings.values())
        parts = [f"{self.what} {ended}/{self.trials} finished"]
        parts += [f"{count} {state.lower()}" for state, count in self.endings.items() if count and state != "COMPLETE"]
        parts += [f"#{number} {where}" for number, where in sorted(self.running.items())]
        if self.best:
            parts.append(f"best Dice {self.best[0]:.3f} (#{self.best[1]})")
        elapsed = time.monotonic() - self.started
        if 0 < self.done < self.epochs:
            parts.append(f"{duration(elapsed / self.done * (self.epochs - self.done))} left")
        else:
            parts.append(f"{duration(elapsed)} so far")
        return " · ".join(parts)

    def show(self, force: bool = False) -> None:
        """Print the line if it is due."""
        now = time.monotonic()
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1  # a wrapped line could not be overwritten
            sys.stderr.write(f"\r\x1b[2K{self.line()[:width]}")
            sys.stderr.flush()
        elif force or now - self.printed > QUIET_SECONDS:
            print(self.line(), file=sys.stderr, flush=True)
            self.printed = now

    def close(self) -> None:
        """End the line, so that what is printed next starts on its own."""
        if self.terminal:
            sys.stderr.write("\n")
