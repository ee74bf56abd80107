"""up, down, status."""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from ouroboros import serving, show, system
from ouroboros.exits import Exit, Trouble
from ouroboros.home import Home, State
from ouroboros.options import Options
from ouroboros.system import Up

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Count = typer.Option(min=1, max=16, help="How many processes of this service.")


def up(
    detach: Annotated[bool, typer.Option(help="Return when ready; `down` stops it.")] = False,
    gateways: Annotated[int, Count] = 1,
    preclassifiers: Annotated[int, Count] = 1,
    classifiers: Annotated[int, Count] = 1,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the first gateway; 0: 8080 or the next free.")
    ] = 0,
    profile: Annotated[str, typer.Option(help="Of the topic table: laptop or cluster.")] = "laptop",
    as_json: AsJson = False,
) -> None:
    """Start Kafka and the services on this machine; say where the gateway is."""
    home = Home.here()
    if profile not in ("laptop", "cluster"):
        raise typer.BadParameter("laptop or cluster", param_hint="--profile")
    options = Options(
        gateways,
        preclassifiers,
        classifiers,
        port,
        "cluster" if profile == "cluster" else "laptop",
        attached=not detach,
    )
    interrupted = on_terminate()
    with show.doing("starting", quiet=as_json) as tell:
        started = system.start(home, options, tell)
    announce(home, started.state, as_json)
    if detach:
        return
    if not as_json:
        show.err.print("Ctrl-C stops it.")
    hold(started, interrupted)


def down(as_json: AsJson = False) -> None:
    """Stop everything that `up` started, after what is in flight."""
    home = Home.here()
    with show.doing("stopping", quiet=as_json) as tell:
        was = system.stop(home, tell)
    if as_json:
        show.plain({"stopped": was})
    else:
        show.out.print("stopped" if was else "nothing runs here")


def status(as_json: AsJson = False) -> None:
    """What runs here: each process with its health, and how far each service is behind."""
    home = Home.here()
    state = home.running()
    if state is None:
        raise Trouble(
            Exit.NOT_RUNNING,
            f"no system runs in {home.folder}",
            "start one: `ouroboros up --detach`",
        )
    lines = list(system.lines(state))
    behind = lag(home)
    network = serving.backbone(home, state)
    champions = serving.champions(home, state, network)
    if as_json:
        show.plain(
            {
                "phase": state.phase,
                "doing": state.doing,
                "home": str(home.folder),
                "gateways": list(state.gateways),
                "kafka_url": state.kafka_url,
                "processes": [line.plain() for line in lines],
                "lag": behind,
                "backbone": network.plain() if network else None,
                "models": None if champions is None else [one.plain() for one in champions],
            }
        )
        return
    processes(home, state, lines)
    tell_lag(behind)
    tell_served(network, champions)


def lag(home: Home) -> dict[str, int] | None:
    """How many records each group is behind; None where Kafka cannot say it now."""
    with suppress(ConnectionError, TimeoutError, LookupError, Trouble):
        return dict(system.lag(system.reachable(home)))
    return None


def processes(home: Home, state: State, lines: Sequence[system.Line]) -> None:
    columns = ("service", "pid", "restarts", "RSS MB", "health", "port", "metrics")
    rows = (
        (
            line.child.name,
            line.child.pid,
            line.child.restarts,
            round(line.rss_mb),
            line.health,
            line.child.port or "",
            line.child.metrics_port or "",
        )
        for line in lines
    )
    show.out.print(show.table(f"{state.phase} in {home.folder}", columns, rows))


def tell_lag(behind: dict[str, int] | None) -> None:
    if behind is None:
        show.out.print("lag: away (Kafka does not answer)")
    else:
        show.out.print(show.table("", ("behind", "records"), sorted(behind.items())))


def tell_served(
    network: serving.Network | None, champions: Sequence[serving.Champion] | None
) -> None:
    if network is None:
        show.out.print("backbone: its package cannot be read")
    else:
        show.out.print(
            f"backbone {network.name} {network.version}, feature space {network.feature_space}"
        )
    if champions is None:
        show.out.print("models: away (no gateway answers)")
        return
    if not champions:
        show.out.print("models: none yet; `ouroboros fit FOLDER --model NAME`")
        return
    rows = (
        (one.name, one.version, one.feature_space, "another backbone's: fit it again" * one.idle)
        for one in champions
    )
    show.out.print(show.table("", ("model", "version", "feature space", ""), rows))


def announce(home: Home, state: State, as_json: bool) -> None:
    key = home.read("api.key") or ""
    if as_json:
        show.plain(
            {
                "gateway": state.gateways[0],
                "gateways": list(state.gateways),
                "api_key": key,
                "supervisor": state.supervisor,
                "home": str(home.folder),
            }
        )
        return
    for url in state.gateways:
        show.out.print(f"gateway  {url}  (its pages: {url}/docs)", soft_wrap=True)
    show.out.print(f"API key  {key}", soft_wrap=True)


def on_terminate() -> list[int]:
    """Make SIGTERM end this command as Ctrl-C does; the list tells which signal came."""
    came: list[int] = []

    def heard(number: int, _frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, heard)
    return came


def hold(started: Up, came: list[int]) -> None:
    """Stay until Ctrl-C, SIGTERM or the system's own end; then stop it."""
    try:
        while started.popen.poll() is None:
            time.sleep(0.2)
        raise Trouble(Exit.NOT_READY, "the supervisor ended", "see the logs")
    except KeyboardInterrupt:
        with show.doing("stopping"):
            started.stop()
        show.err.print("stopped")
        if came:
            raise typer.Exit(0) from None
        raise typer.Exit(int(Exit.INTERRUPTED)) from None
