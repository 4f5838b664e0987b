"""What a person sees of a run of load: how it goes, and at its end the figures and every kind of refusal."""

import asyncio
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from service.load.summary import Summary
from service.load.tally import Tally

_LOOKS_A_SECOND = 4
_PROBLEM = "urn:jigsight:problem:"  # what the types of the service's own problems begin with


async def show_progress(tally: Tally, *, seconds: float, console: Console) -> None:
    """Show how far it is until cancelled."""
    clock = asyncio.get_running_loop().time
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        line = progress.add_task(_line(tally), total=seconds)
        while True:
            progress.update(line, completed=min(clock() - tally.start, seconds), description=_line(tally))
            await asyncio.sleep(1 / _LOOKS_A_SECOND)


def print_summary(summary: Summary, console: Console) -> None:
    """Rates, latencies and verdicts, then every kind of answer that was no verdict."""
    document = summary.document()
    planned = f" of {summary.planned:g}/s planned" if summary.planned is not None else ", one when one is answered"
    console.print(f"offered    {summary.offered:.1f}/s ({document['sent']} in {summary.sending:.1f} s{planned})")
    console.print(f"achieved   {summary.achieved:.1f}/s ({document['accepted']} judged: {_verdicts(document)})")
    if document["unsent"]:
        console.print(f"never sent {document['unsent']}")
    if document["unanswered"]:
        console.print(f"unanswered {document['unanswered']} when it was ended")
    console.print(_latencies(document))
    if document["refusals"]:
        console.print(_refusals(document))
    for warning in document["warnings"]:
        console.print(f"[bold yellow]warning:[/] {warning}")


def _line(tally: Tally) -> str:
    count = len(tally.refused) + tally.unsent
    refused = f", [red]{count} not[/]" if count else ""
    return f"{tally.sent} sent, {len(tally.accepted)} judged{refused}, {tally.in_flight} in flight"


def _verdicts(document: dict[str, Any]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(document["verdicts"].items())) or "none"


def _latencies(document: dict[str, Any]) -> Table:
    table = Table("ms from when it was due", *("p50", "p90", "p95", "p99", "max"))
    for name, key in (("judged", "accepted_ms"), ("not judged", "refused_ms")):
        if document[key]:
            table.add_row(name, *(f"{time:.1f}" for time in document[key].values()))
    return table


def _refusals(document: dict[str, Any]) -> Table:
    table = Table("status", title="not judged")
    table.add_column("type", overflow="fold")
    for heading in ("count", "Retry-After", "the first one says"):
        table.add_column(heading)
    for each in document["refusals"]:
        table.add_row(
            str(each["status"] or "none"),
            escape(each["kind"].removeprefix(_PROBLEM)),
            str(each["count"]),
            _retry_after(each),
            escape(each["detail"]),
        )
    return table


def _retry_after(refusal: dict[str, Any]) -> str:
    missing, count = refusal["without_retry_after"], refusal["count"]
    if missing == count:
        return "none"
    return f"{refusal['retry_after']} s" if not missing else f"missing in {missing}"
