"""The screen of `cavalcade top`, drawn with rich."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cavalcade.cli import describe, worker_table
from cavalcade.cli.instances import Instance
from cavalcade.cli.keys import Keys
from cavalcade.cli.worker_table import COLUMNS, Column
from cavalcade.errors import ControlError, UsageError
from cavalcade.observe.logs import printable
from cavalcade.supervisor.inspector import Inspection
from cavalcade.supervisor.status import Status, WorkerStatus

KEYS = "up/down choose · s/S sort · o other way · d stacks · r recycle · q quit"
IN_STACKS = "up/down scroll · d look again · escape back · q quit"
LATE_S, VERY_LATE_S = 0.1, 0.25  # of a loop; requests notice
BUSY = 0.9
GONE_S = 2.0  # without a server for so long, it has gone
GAP = 2  # columns of the terminal between two of the table
_LEAST_USEFUL = ("requests", "conns", "worker", "last reason", "restarts", "gen", "age")  # left out first where there is no room for all


@dataclass
class View:
    """What is looked at, and how."""

    status: Status
    sort: int = 0
    turned: bool = False
    chosen: int = 0  # the number of a worker
    recycling: int = 0  # one that is to be replaced, once that is confirmed
    says: str = ""
    stacks: list[str] = field(default_factory=list)
    scrolled: int = 0
    lost_at: float = 0.0  # since when there is no server; 0 while there is

    def workers(self) -> list[WorkerStatus]:
        """In the order of the table."""
        column = COLUMNS[self.sort]
        ordered = sorted(self.status.workers, key=lambda worker: (worker.slot, worker.id))
        return sorted(ordered, key=column.key, reverse=column.downwards != self.turned)

    def chosen_worker(self) -> WorkerStatus | None:
        """The chosen one; the first where that has gone."""
        workers = self.workers()
        return next((worker for worker in workers if worker.id == self.chosen), workers[0] if workers else None)


def watch(find: Callable[[], Instance], interval_s: float) -> None:
    """Until somebody quits. Where the server has gone, the one that `find` gives has taken its place; raises what it raises where there is
    none."""
    instance = find()
    view = View(instance.status)
    console = Console()
    with Keys(sys.stdin) as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        look_at = monotonic() + interval_s
        while True:
            live.update(draw(view, console.width, console.height), refresh=True)
            key = keys.wait(look_at - monotonic())
            if key and not press(view, key, instance):
                return
            if monotonic() >= look_at:
                instance = _look(view, instance, find)
                look_at = monotonic() + interval_s


def _look(view: View, instance: Instance, find: Callable[[], Instance]) -> Instance:
    """How it is now; the server that was seen, or the one that has taken its place."""
    try:
        view.status = msgspec.json.decode(instance.get("status"), type=Status)
    except ControlError:
        try:
            instance = find()
        except ControlError:  # between two servers there may be a moment without
            view.lost_at = view.lost_at or monotonic()
            if monotonic() - view.lost_at > GONE_S:
                raise
            view.says = "It does not answer; looking for it again."
            return instance
        view.status = instance.status
    if view.lost_at:
        view.lost_at, view.says = 0.0, ""
    return instance


# -- keys ------------------------------------------------------------------------------------------------------------------


def press(view: View, key: str, instance: Instance) -> bool:
    """What a key does; False where it ends this."""
    worker = view.chosen_worker()
    if view.recycling:
        number, view.recycling = view.recycling, 0
        view.says = _order(instance, number) if key == "y" else "Nothing is done."
        return True
    view.says = ""
    match key:
        case "q":
            return False
        case "escape" | "enter":
            view.stacks = []
        case "up" | "k" | "down" | "j":
            _move(view, 1 if key in ("down", "j") else -1)
        case "s" | "S":
            view.sort = (view.sort + (1 if key == "s" else -1)) % (len(COLUMNS) - 1)  # the last is no number
        case "o":
            view.turned = not view.turned
        case "d" if worker is not None:
            view.stacks, view.scrolled = _dump(instance, worker.id), 0
        case "r" if worker is not None and not view.stacks:
            view.recycling = worker.id
            view.says = f"Replace worker {worker.id} (pid {worker.pid})? Its successor is ready first. y/n"
    return True


def _move(view: View, by: int) -> None:
    if view.stacks:
        view.scrolled = min(max(0, view.scrolled + by), len(view.stacks) - 1)
        return
    workers, chosen = view.workers(), view.chosen_worker()
    if chosen is not None:
        view.chosen = workers[min(max(0, workers.index(chosen) + by), len(workers) - 1)].id


def _order(instance: Instance, worker: int) -> str:
    try:
        instance.post("workers", str(worker), "recycle", wait=False)
    except (ControlError, UsageError) as error:
        return error.cause
    return f"Worker {worker} is being replaced."


def _dump(instance: Instance, worker: int) -> list[str]:
    try:
        found = instance.get("workers", str(worker), "stack")
    except (ControlError, UsageError) as error:
        return [error.cause]
    return [printable(line) for line in describe.describe_inspection(msgspec.json.decode(found, type=Inspection), full=False)]


# -- drawing -----------------------------------------------------------------------------------------------------------------


def draw(view: View, width: int, height: int) -> Group:
    """All of it, in so many columns and lines."""
    status = view.status
    head = [
        Text(printable(worker_table.title(status)), style="bold red" if status.degraded or not status.ready else "bold"),
        *(Text(printable(line)) for line in worker_table.summary(status)),
        Text(view.says, style="yellow") if view.says else Text(IN_STACKS if view.stacks else KEYS, style="dim"),
        Text(""),
    ]
    left = max(1, height - len(head))
    for line in head:
        line.no_wrap = True
        line.overflow = "ellipsis"
    if view.stacks:
        shown = view.stacks[view.scrolled : view.scrolled + left]
        return Group(*head, *(Text(line, no_wrap=True, overflow="ellipsis") for line in shown))
    worst = worker_table.worst_places(status.stalls)
    below = (
        [Text(""), Text("blocked the loop, worst first", style="bold"), *(Text(f"  {printable(line)}") for line in worst)] if worst else []
    )
    return Group(*head, _table(view, width, max(1, left - 1 - len(below))), *below)


def _fitting(view: View, titles: dict[str, str], width: int) -> list[Column]:
    """The columns there is room for. `titles` are as they are shown."""
    workers = view.status.workers
    widths = {column.title: max(len(titles[column.title]), *(len(column.show(worker)) for worker in workers), 0) for column in COLUMNS}
    columns = list(COLUMNS)
    for title in _LEAST_USEFUL:
        if sum(widths[column.title] + GAP for column in columns) - GAP <= width:
            break
        columns = [column for column in columns if column.title != title]
    return columns


def _table(view: View, width: int, rows: int) -> Table:
    titles = {column.title: column.title for column in COLUMNS}
    sorted_by = COLUMNS[view.sort]
    titles[sorted_by.title] += "▼" if sorted_by.downwards != view.turned else "▲"
    columns = _fitting(view, titles, width)
    table = Table(box=None, padding=(0, GAP // 2), pad_edge=False, expand=False)
    for column in columns:
        table.add_column(
            titles[column.title], justify="left" if column.left else "right", no_wrap=True, overflow="ellipsis", header_style="bold"
        )
    workers, chosen = view.workers(), view.chosen_worker()
    first = max(0, workers.index(chosen) - rows + 1) if chosen is not None else 0
    for worker in workers[first : first + rows]:
        cells = [Text(printable(column.show(worker)), style=_style(column.title, worker)) for column in columns]
        table.add_row(*cells, style="reverse" if worker is chosen else "")
    return table


def _style(title: str, worker: WorkerStatus) -> str:
    match title:
        case "phase":
            return "" if worker_table.state(worker) == "ready" else "red" if worker.blocked or worker.stopped else "yellow"
        case "lag" if worker.loop_lag_s >= LATE_S:
            return "red" if worker.loop_lag_s >= VERY_LATE_S else "yellow"
        case "busy" if worker.busy >= BUSY:
            return "yellow"
        case _:
            return ""
