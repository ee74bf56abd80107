"""demo: everything, once, before one's eyes."""

import contextlib
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ouroboros import show, system
from ouroboros.client import Client
from ouroboros.commands.models import Shown
from ouroboros.commands.running import AsJson, hold, on_terminate
from ouroboros.exits import Exit
from ouroboros.home import Home
from ouroboros.options import Options
from ouroboros.submit import Outcome, submit_files

if TYPE_CHECKING:
    from ouroboros.demo import Photos
    from ouroboros.fitting import Champion

MODEL = "snakes"


def demo(
    exit_: Annotated[bool, typer.Option("--exit", help="Stop after the table.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start everything, learn eight species, answer images that it has never seen."""
    from ouroboros.demo import draw, total  # numpy takes a while to import

    home = Home.here()
    system.sound(home)
    home.make()
    came = on_terminate()
    begun = time.monotonic()
    with show.bar("drawing snakes", total(), quiet=as_json) as advance:
        photos = draw(home, advance)
    with show.doing("starting", quiet=as_json) as tell:
        up = None if running(home) else system.start(home, Options(attached=True), tell)
    try:
        champion = learn(home, photos, as_json)
        outcomes = ask(home, photos, as_json)
        report(champion, outcomes, time.monotonic() - begun, as_json)
        if any(not outcome.ok for outcome in outcomes):
            raise typer.Exit(int(Exit.SOME_FAILED))
        stays = up is None or not exit_
        if stays and not as_json:
            where, key = system.gateway(home)
            for line in next_steps(where, key, Path(outcomes[0].path)):
                show.out.print(escape(line), soft_wrap=True)
        if up is None or exit_:
            return
        show.err.print("It runs until Ctrl-C.")
        hold(up, came)
    finally:
        if up is not None:
            with show.doing("stopping", quiet=as_json):
                up.stop()


def running(home: Home) -> bool:
    state = home.running()
    return state is not None and state.phase == "ready"


def learn(home: Home, photos: "Photos", as_json: bool) -> "Champion":
    """The first model, on the photos to learn from."""
    from ouroboros import fitting  # scipy takes a second to import

    request = fitting.Request(photos.learn, MODEL)
    wanted = system.replicas(home, "classifier")
    return fitting.fit(home, system.reachable(home), request, Shown(as_json), wanted)


def ask(home: Home, photos: "Photos", as_json: bool) -> list[Outcome]:
    """Send the photos that were never seen, through the front door."""
    asked = dict(photos.asked())
    where, key = system.gateway(home)
    outcomes = []
    with (
        Client(where, key) as client,
        show.bar("asking", len(asked), quiet=as_json) as advance,
    ):
        for outcome in submit_files(client, list(asked), model=MODEL, at_once=4):
            truth = asked[outcome.path]
            outcomes.append(
                Outcome(outcome.path, outcome.answer, outcome.code, outcome.message, truth)
            )
            advance(1)
    order = {path: place for place, path in enumerate(asked)}
    return sorted(outcomes, key=lambda outcome: order[outcome.path])


def report(
    champion: "Champion",
    outcomes: Sequence[Outcome],
    seconds: float,
    as_json: bool,
) -> None:
    """The table, and what it comes to."""
    right = sum(bool(o.answer and o.answer.label == o.truth) for o in outcomes)
    if as_json:
        show.plain(
            {
                "model": champion.plain(),
                "answers": [outcome.plain() for outcome in outcomes],
                "right": right,
                "asked": len(outcomes),
                "seconds": round(seconds, 1),
            }
        )
        return
    show.out.print(show.outcomes(outcomes))
    accuracy = champion.metrics.get("accuracy")
    known = f"; {accuracy:.0%} expected by cross-validation" if accuracy is not None else ""
    show.out.print(
        f"\n{right} of {len(outcomes)} right{known}. "
        f"Model {MODEL} {champion.promoted.version}, {champion.images} photos. "
        f"{seconds:.0f} s in all.",
        soft_wrap=True,
    )


def next_steps(where: str, key: str, photo: Path) -> tuple[str, ...]:
    """What to try while it runs; each line works as it is."""
    with contextlib.suppress(ValueError):
        photo = photo.relative_to(Path.cwd())
    shown, ouroboros = shlex.quote(str(photo)), show.called()
    return (
        "",
        "Try next:",
        f"  the API's page     {where}/docs",
        f"  a photo by curl    curl -H 'Authorization: Bearer {key}' -H 'Content-Type: image/jpeg' "
        f"--data-binary @{shown} {where}/v1/images",
        f"  a photo of yours   {ouroboros} submit {shown}",
        f"  watch it work      {ouroboros} watch",
        f"  your own species   {ouroboros} fit FOLDER --model NAME",
    )
