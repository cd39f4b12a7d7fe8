"""The one place that prints: results to stdout, everything else to stderr."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from recalib.errors import RecalibError


class Output:
    """Where a command's results, notes and progress go.

    With `as_json`, stdout gets one JSON document and nothing else. `quiet` drops notes and progress;
    warnings and errors stay.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False):
        from rich.console import Console

        self.as_json = as_json
        self.quiet = quiet
        self._stdout = Console(highlight=False)
        self._stderr = Console(stderr=True, highlight=False)

    def result(self, document: Any, *renderables: Any) -> None:
        """A command's result: the JSON-ready document, or the renderables for people."""
        if self.as_json:
            json.dump(document, sys.stdout, ensure_ascii=False, indent=2, allow_nan=False)
            sys.stdout.write("\n")
            return
        for renderable in renderables:
            self._stdout.print(renderable, markup=False)

    def show(self, renderable: Any) -> None:
        """A part of a result, as soon as it is there; for people only, since JSON is one document."""
        if not self.as_json:
            self._stdout.print(renderable, markup=False)

    def lines(self, prompt: str) -> Iterator[str]:
        """What the user types, line by line, until the input ends."""
        while True:
            try:
                yield input(prompt if sys.stdin.isatty() else "")
            except EOFError:
                return

    def note(self, text: str) -> None:
        """What is going on; for people only."""
        if not self.quiet:
            self._stderr.print(text, style="dim", markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something that the user should know but that does not stop the command."""
        self._stderr.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    def error(self, error: RecalibError) -> None:
        """What was wrong, and what mends it."""
        self._stderr.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        if error.fix:
            self._stderr.print(f"fix: {error.fix}", markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, what: str, total: int, unit: str = "prompts") -> Iterator[Callable[[int], None]]:
        """A progress bar; the value advances it by a number of units."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._stderr, disable=self.quiet) as bar:
            task = bar.add_task(what, total=total)
            yield lambda n: bar.advance(task, n)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", text: int = 1) -> Any:
    """A table whose first columns, so many as `text` says, are text and whose others are figures."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=Text(caption) if caption else None)
    result.caption_justify = "left"
    for i, column in enumerate(columns):
        result.add_column(Text(column), justify="left" if i < text else "right", overflow="fold", no_wrap=i == 0)
    for row in rows:
        result.add_row(*map(Text, row))
    return result


def percent(rate: float | None, interval: tuple[float, float] | None = None) -> str:
    """A fraction as percent, with its interval where there is one."""
    if rate is None:
        return "-"
    text = f"{100 * rate:.1f}"
    if interval is not None:
        text += f" [{100 * interval[0]:.0f},{100 * interval[1]:.0f}]"
    return text
