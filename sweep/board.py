"""What people see while a study runs: a table that redraws in place on a terminal, else a line now and then."""

import atexit
import math
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import RLock
from time import monotonic
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

__all__ = ["Board", "configuration_text", "duration"]

QUIET_SECONDS = 60.0
"""Without a terminal a line is printed at each ending, and otherwise this rarely."""
REFRESHES = 2
"""A second, of the table."""
ROWS = 12
"""Running items that are shown."""
LOW = 20
"""Lines of a terminal below which each fact is cropped to one."""
WINDOW_SECONDS = 300.0
WINDOW_LEAST = 20
"""The pace is that of the last minutes, or of so many epochs where they are longer than that."""
ENDINGS = ("COMPLETE", "PRUNED", "FAILED")
RUNNING = "RUNNING"


def configuration_text(values: Mapping[str, Any]) -> str:
    """Return a configuration's varied fields for people."""
    return ", ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )


def duration(seconds: float) -> str:
    """Return a length of time for people: 42 s, 7 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass
class Item:
    """A trial, a fold or a scene, and what is known of it."""

    state: str = RUNNING
    where: str = "starting"
    dice: float | None = None
    config: str = ""
    tiles_per_s: float | None = None
    gpu: float | None = None
    seen: set[str] = field(default_factory=set)
    """Its epochs so far: one that is trained again after a lost attempt brings the end no nearer."""


class Pace:
    """How many a second were done lately."""

    def __init__(self) -> None:
        self.times = deque([monotonic()])

    def tick(self) -> None:
        """Note that one is done."""
        self.times.append(monotonic())
        while len(self.times) > WINDOW_LEAST + 1 and self.times[0] < self.times[-1] - WINDOW_SECONDS:
            self.times.popleft()

    def per_second(self) -> float | None:
        """Return the rate, or None before the first; it falls while nothing comes."""
        elapsed = monotonic() - self.times[0]
        return (len(self.times) - 1) / elapsed if len(self.times) > 1 and elapsed > 0 else None


class Board:
    """Counts items and epochs, and knows how long the rest will take at the pace so far.

    `total` items have `epochs` epochs together if none is stopped early; with 0 epochs the pace is that of the items.
    `notebook` is the number of the notebook recipe's trial. `spent` returns a short text; it is called from another
    thread with each refresh. All else costs the caller microseconds, but for `say`, `retry` and `close`.
    """

    def __init__(
        self,
        total: int,
        epochs: int,
        what: str = "trials",
        notebook: int | None = None,
        spent: Callable[[], str] | None = None,
    ) -> None:
        self.total, self.epochs, self.what, self.notebook, self.spent = total, epochs, what, notebook, spent
        self.unit = "epochs" if epochs else what
        self.items: dict[int, Item] = {}
        self.done = 0
        self.pace, self.started = Pace(), monotonic()
        self.printed: float | None = None
        self.lock = RLock()  # held where callers write and the table reads, never while something is printed
        self.console = _terminal()
        self.live: Live | None = None

    @property
    def running(self) -> dict[int, Item]:
        """The items that run now, by number."""
        return {number: item for number, item in sorted(self.items.items()) if item.state == RUNNING}

    def catch_up(self, number: int, state: str, dice: float | None, steps: int, config: str = "") -> None:
        """Count an item of an earlier start, whose `steps` epochs are no part of the pace; PREEMPTED: it goes on."""
        with self.lock:
            self.items[number] = Item(state, "", dice, config)
            self.epochs -= steps

    def start(self, number: int, config: str = "") -> None:
        """Note that an item has started; `config` is a short text of the varied fields."""
        with self.lock:
            item = self.items.setdefault(number, Item())
            item.state, item.where, item.config = RUNNING, "starting", config or item.config
        self._show()

    def epoch(
        self, number: int, where: str, dice: float, tiles_per_s: float | None = None, gpu: float | None = None
    ) -> None:
        """Note an epoch: `where` says which, `dice` is what the item has reached, `gpu` is in percent."""
        with self.lock:
            item = self.items.setdefault(number, Item())
            item.where, item.dice, item.tiles_per_s, item.gpu = where, dice, tiles_per_s, gpu
            self.done += where not in item.seen
            item.seen.add(where)
            if self.unit == "epochs":
                self.pace.tick()
        self._show()

    def tick(self) -> None:
        """Show what time alone has changed, where it is due; to be called every few seconds."""
        if self.items:
            self._show()

    def retry(self, number: int, reason: str) -> None:
        """Say that an attempt was lost and the item starts again."""
        with self.lock:
            item = self.items.setdefault(number, Item())
            item.state, item.where, item.tiles_per_s, item.gpu = RUNNING, "starting again", None, None
        self.say(f"#{number} starts again: {reason}")

    def end(self, number: int, state: str, epochs_saved: int = 0) -> None:
        """Note how an item ended, and how many epochs it will not need; a PREEMPTED one is still to be done."""
        with self.lock:
            self.items.setdefault(number, Item()).state = state
            self.epochs -= epochs_saved
            if self.unit != "epochs" and state in ENDINGS:
                self.pace.tick()
        self._show(ending=True)

    def say(self, text: str) -> None:
        """Print a line, above the table where there is one."""
        with suppress(OSError):  # nobody is there to read it any more; the study goes on
            if self.live is not None:
                self.live.console.print(Text(text))
            else:
                print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the table as it is now, so that what is printed next stands below it."""
        live, self.live, self.console = self.live, None, None
        if live is not None:
            atexit.unregister(self.close)
            with suppress(OSError):
                live.stop()

    def _show(self, ending: bool = False) -> None:
        """Start the table, which refreshes itself from then on, or print the line if it is due."""
        if self.console is not None:
            if self.live is None:
                self._open(self.console)
        elif ending or self.printed is None or monotonic() - self.printed >= QUIET_SECONDS:
            self.printed = monotonic()
            self.say(self.line())

    def _open(self, console: Console) -> None:
        # What goes into a pipe or a file stays out of the terminal.
        self.live = Live(self, console=console, refresh_per_second=REFRESHES, redirect_stdout=sys.stdout.isatty())
        atexit.register(self.close)  # an error on the way would else leave the terminal without its cursor
        with suppress(OSError):
            self.live.start()

    def line(self) -> str:
        """Return what is known in one line, the most important first."""
        spent = self._spent()
        with self.lock:
            running = self.running
            best, config = self._best()
            parts = [self._heading(), *([f"best Dice {best}"] if best else []), *([config] if config else [])]
            parts += [f"{self._left()} left", *self._speed(), f"spent {spent}"]
            parts += [f"#{number} {item.where}" for number, item in list(running.items())[:ROWS]]
        return " · ".join(parts + _more(len(running) - ROWS))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        spent = self._spent()
        facts = Table.grid(padding=(0, 2))
        with self.lock:
            heading, running = self._heading(), self.running
            best, config = self._best()
            lines = [("best Dice", best)] if best else []
            lines += [("time left", self._left()), ("pace", " · ".join(self._speed()) or "–"), ("spent", spent)]
            lines += [("configuration", config)] if config else []
            count = max(1, min(ROWS, console.height - 10))
            rows = _rows(list(running.items())[:count])
        cropped = console.height < LOW  # a long configuration would push the rows off the screen
        for label, text in lines:
            facts.add_row(Text(label, style="dim", no_wrap=True), Text(text, no_wrap=cropped, overflow="ellipsis"))
        yield Text(heading, style="bold")
        yield facts
        if running:
            yield rows
        yield from map(Text, _more(len(running) - count))

    def _heading(self) -> str:
        counts = Counter(item.state for item in self.items.values())
        parts = [f"{self.what} {sum(counts[state] for state in ENDINGS)}/{self.total} ended"]
        parts += [f"{counts[state]} {state.lower()}" for state in (*ENDINGS, "PREEMPTED", RUNNING) if counts[state]]
        return " · ".join(parts)

    def _best(self) -> tuple[str, str]:
        """Return the best Dice of what has not failed with the notebook recipe's beside it, and its configuration."""
        known = {
            number: item.dice
            for number, item in self.items.items()
            if item.state != "FAILED" and item.dice is not None and not math.isnan(item.dice)
        }
        if not known:
            return "", ""
        best = max(known, key=lambda number: known[number])
        notebook = f" · notebook {known[self.notebook]:.3f} (#{self.notebook})" if self.notebook in known else ""
        return f"{known[best]:.3f} (#{best}){notebook}", self.items[best].config

    def _speed(self) -> list[str]:
        """Return epochs a second, and tiles a second and GPU use where the running items tell them."""
        rate = self.pace.per_second()
        parts = [] if rate is None else [f"{rate:.1f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s"]
        if tiles := [item.tiles_per_s for item in self.running.values() if item.tiles_per_s is not None]:
            parts.append(f"{sum(tiles):.0f} tiles/s")
        if use := [item.gpu for item in self.running.values() if item.gpu is not None]:
            parts.append(f"GPU {sum(use) / len(use):.0f} %")
        return parts

    def _left(self) -> str:
        rate = self.pace.per_second()
        if rate is None:
            return "–"
        ended = sum(item.state in ENDINGS for item in self.items.values())
        rest = self.epochs - self.done if self.unit == "epochs" else self.total - ended
        return duration(max(0, rest) / rate)

    def _spent(self) -> str:
        return self.spent() if self.spent else duration(monotonic() - self.started)


def _rows(items: list[tuple[int, Item]]) -> Table:
    """Return the running items, a row each; Text, since a configuration's brackets would else be rich's markup."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("now", no_wrap=True)
    table.add_column("Dice", no_wrap=True)
    table.add_column("configuration")  # the one column that gives way, for it alone may wrap
    for number, item in items:
        dice = "–" if item.dice is None else f"{item.dice:.3f}"
        table.add_row(str(number), Text(item.where), dice, Text(item.config, no_wrap=True, overflow="ellipsis"))
    return table


def _more(count: int) -> list[str]:
    return [f"… and {count} more"] if count > 0 else []


def _terminal() -> Console | None:
    """Return a console that can redraw in place, or None where there is none: a pipe, TERM=dumb, no UTF-8."""
    if not sys.stderr.isatty() or not os.environ.get("TERM"):
        return None
    console = Console(stderr=True)
    return console if console.is_interactive and console.encoding.startswith("utf") else None
