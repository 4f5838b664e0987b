"""What a person sees while training works: a bar per step on a terminal; in a log, a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

_LOG_EVERY = 15.0  # seconds between a step's lines where there is no terminal


class Step:
    """One step under way, `done` of its `total` units behind it."""

    def __init__(self, total: int, done: int, show: Callable[["Step"], None]) -> None:
        self.total = total
        self.done = done
        self.note = ""
        self._show = show

    def advance(self, note: str = "", *, by: int = 1) -> None:
        """Move on by `by` units; `note` (a loss, say) says how it goes."""
        self.done += by
        self.note = note
        self._show(self)

    def reach(self, done: int, _total: int | None = None) -> None:
        """Stand at `done` units; fits wherever `progress(done, total)` is called back."""
        self.done = done
        self._show(self)


class Progress:
    """Steps of a long run, written to `console` (None: nowhere); `seconds` keeps each step's time."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._began = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @classmethod
    def silent(cls) -> "Progress":
        """A progress that nobody sees."""
        return cls(None)

    def times(self) -> dict[str, float]:
        """Seconds of each step, in order, of what belongs to none ("other"), and since the beginning ("total")."""
        total = time.perf_counter() - self._began
        times = {**self.seconds, "other": max(0.0, total - sum(self.seconds.values())), "total": total}
        return {name: round(spent, 3) for name, spent in times.items()}

    def say(self, text: str) -> None:
        """One line for the person who watches."""
        if self._console is not None:
            self._console.print(text, highlight=False, markup=False)

    @contextmanager
    def step(self, name: str, total: int, *, done: int = 0) -> Iterator[Step]:
        """Show a step of `total` units, of which `done` are behind us; keep its time."""
        started = time.perf_counter()
        if self._console is not None and self._console.is_terminal:
            with self._bar(name, total, done) as step:
                yield step
        else:
            step = Step(total, done, self._log(name))
            yield step
        spent = time.perf_counter() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self.say(f"{name:<28} {spent:6.1f} s  {step.note}")

    @contextmanager
    def _bar(self, name: str, total: int, done: int) -> Iterator[Step]:
        columns = (
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Bars(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(name, total=total, completed=done, note="")
            yield Step(total, done, lambda step: bars.update(task, completed=step.done, note=step.note))

    def _log(self, name: str) -> Callable[[Step], None]:
        last = time.perf_counter()

        def show(step: Step) -> None:
            nonlocal last
            if time.perf_counter() - last >= _LOG_EVERY and step.done < step.total:
                last = time.perf_counter()
                self.say(f"{name:<28} {step.done}/{step.total}  {step.note}")

        return show
