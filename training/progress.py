"""What a person sees while training works: a bar per step on a terminal, a line per step in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Step:
    """One step under way; `advance` moves it on by one unit and says how it goes."""

    def __init__(self, bars: Bars | None, task: TaskID | None) -> None:
        self._bars = bars
        self._task = task
        self.note = ""

    def advance(self, note: str = "", *, by: int = 1) -> None:
        """Move on by `by` units; `note` (a loss, say) stands beside the bar."""
        self.note = note
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=by, note=note)

    def reach(self, done: int, _total: int | None = None) -> None:
        """Stand at `done` units; fits wherever `progress(done, total)` is called back."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done)


class Progress:
    """Steps of a long run, written to `console` (None: nowhere); `seconds` keeps each step's time."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self.seconds: dict[str, float] = {}

    @classmethod
    def silent(cls) -> "Progress":
        """A progress that nobody sees."""
        return cls(None)

    def say(self, text: str) -> None:
        """One line for the person who watches."""
        if self._console is not None:
            self._console.print(text, highlight=False)

    @contextmanager
    def step(self, name: str, total: int, *, done: int = 0) -> Iterator[Step]:
        """Show a step of `total` units, of which `done` are behind us; keep its time."""
        started = time.perf_counter()
        if self._console is not None and self._console.is_terminal:
            columns = (
                TextColumn("{task.description:<28}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Bars(*columns, console=self._console, transient=True) as bars:
                step = Step(bars, bars.add_task(name, total=total, completed=done, note=""))
                yield step
        else:
            step = Step(None, None)
            yield step
        spent = time.perf_counter() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self.say(f"{name:<28} {spent:6.1f} s  {step.note}")
