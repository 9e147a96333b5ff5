"""Orders: each is done or taken back as a whole, and the answer comes when it is known which; with `?wait=0` at once."""

from __future__ import annotations

from collections.abc import Callable

from cavalcade.admin import looking
from cavalcade.admin.answers import Answer, Asked, Reply, reject, say, show
from cavalcade.errors import TlsError
from cavalcade.supervisor import events as on
from cavalcade.supervisor.commands import Verdict

STATUS_OF = {Verdict.DONE: 200, Verdict.REJECTED: 400, Verdict.FAILED: 409, Verdict.STOPPING: 503}


async def reload(asked: Asked) -> Answer:
    """New code, worker by worker."""
    return await _wish(asked, on.Reload)


async def scale(asked: Asked) -> Answer:
    """`workers=N`, or `n=N`; or so many more (+N) or fewer (-N)."""
    text = asked.query.get("workers", asked.query.get("n", "")).strip()
    digits = text.lstrip("+-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 9 and len(text) <= len(digits) + 1):
        return reject(400, "How many workers? Say ?workers=4, +1 or -1.")
    return await _wish(asked, lambda request: on.Scale(request, int(text), text[0] in "+-"))


async def recycle(asked: Asked) -> Answer:
    """A successor for a worker, or for `all`."""
    text = asked.words["worker"]
    if text == "all":
        return await _wish(asked, on.Recycle)
    number = looking.worker_number(text)
    if not any(worker.id == number for worker in asked.desk.status().workers):
        return looking.no_worker(text)
    return await _wish(asked, lambda request: on.Recycle(request, number))


async def drain(asked: Asked) -> Answer:
    """Out of rotation, or with `off=1` back in it."""
    off = asked.flag("off", default=False)
    return await _wish(asked, lambda request: on.Drain(request, off))


async def stop(asked: Asked) -> Answer:
    """What SIGTERM does; answered when every worker is gone."""
    asked.wishes.stop()
    if not asked.flag("wait", default=True):
        return say(202, "begun", "It stops.")
    return say(200, "done", f"stopped, exit code {await asked.wishes.wait_end()}")


async def log_level(asked: Asked) -> Answer:
    """`level=NAME`, in every process and those to come."""
    try:
        asked.desk.set_log_level(asked.query.get("level", ""))
    except ValueError as problem:
        return reject(400, f"{problem}.")
    return say(200, "done", f"The log level is {asked.desk.settings().log_level}.")


async def renew_certificates(asked: Asked) -> Answer:
    """Look at the files now, not within the second."""
    if asked.desk.renew_certificates is None:
        return reject(400, "This server has no certificates.", fix="HTTPS needs --ssl-certfile")
    try:
        new = asked.desk.renew_certificates()
    except TlsError as error:
        return show(Reply("failed", f"The files are not taken up, what was served before is: {error.cause}", error.fix), 409)
    return say(200, "done", "New certificates, keys or lists are in use." if new else "Nothing is new: what the files hold is in use.")


async def _wish(asked: Asked, make: Callable[[int], on.Event]) -> Answer:
    answer = await asked.wishes.wish(make, wait=asked.flag("wait", default=True))
    if answer is None:
        return say(202, "begun", "It has begun; GET /status shows how it goes.")
    reply = Reply(answer.verdict.value, answer.text, answer.fix, answer.trace, answer.generation, answer.workers, answer.seconds)
    return show(reply, STATUS_OF[answer.verdict])
