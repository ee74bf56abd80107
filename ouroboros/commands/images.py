"""submit, result, watch."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ouroboros import show, system
from ouroboros.client import Answer, Client, Refused, results
from ouroboros.commands.running import AsJson
from ouroboros.exits import Exit, Trouble
from ouroboros.home import Home
from ouroboros.submit import AT_ONCE, Outcome, found_under, submit_files
from spine.events import ImageClassified, ImageFailed
from spine.settings import Settings

Url = Annotated[str, typer.Option(help="Of the gateway; OUROBOROS_URL, or the one that runs here.")]
Key = Annotated[str, typer.Option(help="API key; OUROBOROS_API_KEY, or this home's.")]


def submit(
    paths: Annotated[list[Path], typer.Argument(help="Images, and folders of images.")],
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for each answer; 0: take tickets.")
    ] = 60.0,
    model: Annotated[str, typer.Option(help="Name of the model; the gateway's default.")] = "",
    at_once: Annotated[int, typer.Option(min=1, max=256, help="Images in flight.")] = AT_ONCE,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Send images; show the species of each. A bad image is answered by itself."""
    files = files_in(paths, as_json)
    where, secret = system.gateway(Home.here(), url, key)
    outcomes: list[Outcome] = []
    with (
        Client(where, secret, connections=at_once + 4) as client,
        show.bar("submitting", len(files), quiet=as_json) as advance,
    ):
        for outcome in submit_files(
            client, files, model=model or None, seconds=wait, at_once=at_once
        ):
            outcomes.append(outcome)
            advance(1)
            if as_json:
                show.plain(outcome.plain())
    if not as_json:
        order = {path: place for place, path in enumerate(files)}
        show.out.print(show.outcomes(sorted(outcomes, key=lambda o: order[o.path]), ids=True))
    end(outcomes)


def files_in(paths: list[Path], as_json: bool) -> Sequence[Path]:
    """What is to be sent. Raises Trouble where a path is of nothing, or there is no image."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise Trouble(Exit.UNUSABLE, "there is no " + ", ".join(str(path) for path in missing))
    found = found_under(paths)
    if found.others and not as_json:
        others = show.counted(found.others, "file")
        show.err.print(f"{others} passed over: not named like an image")
    if not found.images:
        raise Trouble(Exit.UNUSABLE, "there is no image in what was given")
    return found.images


def result(
    image_id: Annotated[str, typer.Argument(help="The image's id.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for its end.")] = 0.0,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """What is known of an image."""
    where, secret = system.gateway(Home.here(), url, key)
    try:
        with Client(where, secret) as client:
            found = client.result(image_id, wait=wait)
    except Refused as error:
        if error.status in (401, 403):
            raise refused_key(str(error)) from error
        code = Exit.NOT_FOUND if error.status in (404, 410) else Exit.AWAY
        raise Trouble(code, str(error.problem.get("title") or error), str(error)) from error
    if as_json:
        show.plain(dict(found.body))
    else:
        print_answer(found)
    if found.state in ("failed", "expired"):
        raise typer.Exit(int(Exit.SOME_FAILED))


def watch(
    count: Annotated[int, typer.Option(min=0, help="End after so many; 0: go on.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Every result as it comes, live from Kafka, until Ctrl-C."""
    settings = system.reachable(Home.here())
    if not as_json:
        show.err.print("watching results; Ctrl-C ends it")
    asyncio.run(watching(settings, count, as_json))


async def watching(settings: Settings, count: int, as_json: bool) -> None:
    seen = 0
    async with aclosing(results(settings)) as events:
        async for event in events:
            if as_json:
                show.plain(event.model_dump(mode="json"))
            else:
                show.out.print(line(event), soft_wrap=True)
            seen += 1
            if seen == count:
                return


def line(event: ImageClassified | ImageFailed) -> str:
    """One result on one line, in rich's markup."""
    when = event.received_at.astimezone().strftime("%H:%M:%S")
    head = f"[dim]{when}[/] {event.image_id}"
    if isinstance(event, ImageFailed):
        return f"{head} [red]✗ {escape(event.reason)}[/] {escape(event.detail)}"
    colour = "green" if event.decision == "confident" else "yellow"
    best = event.top[0].label if event.top else ""
    label = show.named(event.label, event.unknown, best)
    p = "" if event.unknown else f" {event.probability:.2f}"
    steps = show.grouped(event.ledger)
    ms = "  ".join(f"{name} {show.number(value)}" for name, value in steps.items())
    return (
        f"{head} [{colour}]{escape(label)}[/]{p} "
        f"[dim]{escape(event.model)} {event.model_version}  ms: {ms}[/]"
    )


def print_answer(found: Answer) -> None:
    for row in rows(found):
        show.out.print(*row, soft_wrap=True)


def rows(found: Answer) -> Iterator[tuple[str, str]]:
    """What a person wants to know, line by line."""
    yield "state      ", escape(found.state)
    if found.state == "answered":
        p = "" if found.unknown else f" {found.probability:.2f}"
        yield "answer     ", escape(show.named(found.label, found.unknown, found.best)) + p
        yield "decision   ", escape(str(found.body.get("decision", "")))
        yield "model      ", escape(f"{found.body.get('model', '')} {found.model_version}")
    elif found.terminal:
        yield "reason     ", escape(str(found.body.get("reason", "")))
        yield "what to do ", escape(str(found.body.get("detail", "")))
    if found.ledger:
        yield "ledger (ms)", escape(show.ledger(found.ledger))


def end(outcomes: list[Outcome]) -> None:
    """The exit code: the gateway's absence, else whether all have their species."""
    bad = [outcome for outcome in outcomes if not outcome.ok]
    if bad and all(outcome.code == "gateway.away" for outcome in outcomes):
        raise Trouble(Exit.AWAY, bad[0].message, "is the gateway up? `ouroboros status` says")
    if bad and all(outcome.code.startswith("key.") for outcome in outcomes):
        raise refused_key(bad[0].message)
    if bad:
        raise typer.Exit(int(Exit.SOME_FAILED))


def refused_key(detail: str) -> Trouble:
    """Which key is meant, and why a gateway may not know it."""
    return Trouble(
        Exit.AWAY,
        f"the gateway refuses the API key; it is unknown or revoked, or may not do this: {detail}",
        "give another by --key or OUROBOROS_API_KEY; `ouroboros keys create NAME` makes one",
    )
