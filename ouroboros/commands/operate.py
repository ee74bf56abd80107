"""dead, topics, keys, bench: what an operator types."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ouroboros import show, system
from ouroboros.commands.running import AsJson
from ouroboros.exits import Exit, Trouble
from ouroboros.home import Home
from ouroboros.letters import Letter, by_reason, chosen
from ouroboros.urls import CLIENT, Profile
from spine.log import Log
from spine.settings import GatewaySettings

if TYPE_CHECKING:
    from ouroboros.dead import Done
    from spine.keys import KeyRow
    from spine.records import Records

# What takes a second to import (records, Kafka's clients) stands where it is used.
Topic = Annotated[str, typer.Option(help="Of one topic alone, e.g. images.")]
Reason = Annotated[str, typer.Option(help="With this reason alone, e.g. image.truncated.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Letters, e.g. images.dead/0/17; or all.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it, only count.")]
ProfileOption = Annotated[str, typer.Option(help="Of the topic table: laptop or cluster.")]


def dead_list(topic: Topic = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """The open dead letters, counted by reason, and the newest of them."""
    from ouroboros import dead

    letters = chosen(dead.letters_of(log_here(), topic or None), (), reason or None)
    if as_json:
        show.plain(
            {
                "open": len(letters),
                "by_reason": counted(letters),
                "letters": [
                    {
                        "id": one.id,
                        "image": one.image,
                        "reason": one.reason,
                        "message": one.says("x-dlq-error-message"),
                    }
                    for one in letters
                ],
            }
        )
        return
    if not letters:
        show.out.print("no open dead letters")
        return
    counts = ((row["topic"], row["reason"], row["letters"]) for row in counted(letters))
    show.out.print(show.table("", ("topic", "reason", "letters"), counts))
    newest = [
        (
            one.id,
            one.image,
            one.says("x-dlq-first-failed-at")[:19],
            one.reason,
            one.says("x-dlq-error-message"),
        )
        for one in letters[-20:]
    ]
    columns = ("letter", "image", "failed at", "reason", "message")
    show.out.print(show.table("the newest", columns, newest))


def dead_show(letter: str, as_json: AsJson = False) -> None:
    """One letter: its headers, and its value decoded."""
    from ouroboros import dead

    found = dead.one(log_here(), letter).plain()
    if as_json:
        show.plain(found)
        return
    headers, value = found.pop("headers"), str(found.pop("value"))
    show.out.print(show.table("", ("", ""), found.items()))
    assert isinstance(headers, dict)
    show.out.print(show.table("headers", ("name", "value"), headers.items()))
    with suppress(ValueError):
        value = json.dumps(json.loads(value), indent=2)
    show.out.print(escape(value), soft_wrap=True)


def dead_replay(
    ids: Ids = None,
    topic: Topic = "",
    reason: Reason = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send letters again to the topic they came from, as the next attempt."""
    from ouroboros import dead

    log = log_here()
    letters = picked(log, ids, topic, reason)
    if not yes:
        dry(letters, "replayed", as_json)
        return
    patience = GatewaySettings.load().patience_seconds
    with (
        records_here() as records,
        show.bar("replaying", len(letters), quiet=as_json) as advance,
    ):
        done = dead.replay(log, records, letters, patience, lambda _: advance(1))
    tell(done, "sent again; look at `dead list` in a moment", as_json)


def dead_discard(
    ids: Ids = None,
    topic: Topic = "",
    reason: Reason = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cross letters out for good; their images stay failed."""
    from ouroboros import dead

    log = log_here()
    letters = picked(log, ids, topic, reason)
    if not yes:
        dry(letters, "discarded", as_json)
        return
    with show.bar("discarding", len(letters), quiet=as_json) as advance:
        done = dead.discard(log, letters, lambda _: advance(1))
    tell(done, "discarded", as_json)


def topics_apply(profile: ProfileOption = "laptop", as_json: AsJson = False) -> None:
    """Create what is missing by the topic table, and every group's first offsets."""
    from spine import admin

    settings = system.reachable(Home.here())
    done = admin.apply(settings, named(profile))
    if as_json:
        show.plain({"done": list(done or ())})
    else:
        for line in done or ():
            show.out.print(escape(str(line)))
        show.out.print("the topics are as the table says")


def topics_check(profile: ProfileOption = "laptop", as_json: AsJson = False) -> None:
    """Say where Kafka's topics differ from the table."""
    from spine import admin

    differences = [str(d) for d in admin.check(system.reachable(Home.here()), named(profile))]
    if as_json:
        show.plain({"differences": differences})
    else:
        for line in differences:
            show.out.print(escape(line))
        if not differences:
            show.out.print("the topics are as the table says")
    if differences:
        raise typer.Exit(int(Exit.DIFFERS))


def keys_create(
    name: Annotated[str, typer.Argument(help="What it is for, e.g. 'the phone app'.")],
    client: Annotated[str, typer.Option(help="Whose images its holder sees.")] = CLIENT,
    scope: Annotated[
        list[str] | None, typer.Option(help="submit, label, operate; submit by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A new API key; it is shown once and can't be shown again."""
    from spine import keys

    with records_here() as records:
        try:
            secret, row = keys.create(records, client, name, scope or ["submit"])
        except ValueError as error:
            raise Trouble(Exit.USAGE, str(error)) from None
    if as_json:
        show.plain({"key": secret, **plain(row)})
    else:
        show.out.print(secret)


def keys_list(as_json: AsJson = False) -> None:
    """Every key, without its secret."""
    from spine import keys

    with records_here() as records:
        rows = [plain(row) for row in keys.listed(records)]
    if as_json:
        show.plain(rows)
        return
    columns = ("id", "client", "name", "scopes", "created", "revoked")
    show.out.print(show.table("", columns, (list(row.values()) for row in rows)))


def keys_revoke(key_id: str, as_json: AsJson = False) -> None:
    """A key opens nothing from now on; gateways know within seconds."""
    from spine import keys

    with records_here() as records:
        row = keys.revoke(records, key_id, datetime.now(UTC))
    if row is None:
        raise Trouble(Exit.NOT_FOUND, f"there is no key {key_id}", "`keys list` shows those")
    show.plain(plain(row)) if as_json else show.out.print(f"revoked {row.id} ({escape(row.name)})")


def bench(
    arguments: Annotated[list[str] | None, typer.Argument(help="For the benchmark.")] = None,
) -> None:
    """Measure this machine against the raw limit (from a checkout)."""
    script = Path(__file__).parents[2] / "bench" / "__main__.py"
    if not script.exists():
        raise Trouble(Exit.UNUSABLE, "the benchmarks are not installed", "run it from a checkout")
    done = subprocess.run(
        [sys.executable, "-m", "bench", *(arguments or ())], cwd=script.parents[1], check=False
    )
    raise typer.Exit(done.returncode)


def log_here() -> Log:
    from spine.kafka import open_log

    return open_log(system.reachable(Home.here()))


@contextmanager
def records_here() -> "Iterator[Records]":
    from spine.records import open_records

    records = open_records(system.records_url(Home.here()))
    try:
        yield records
    finally:
        records.close()


def picked(log: Log, ids: Sequence[str] | None, topic: str, reason: str) -> list[Letter]:
    """The letters that are meant. Raises Trouble where an id is of none."""
    from ouroboros import dead

    letters = chosen(dead.letters_of(log, topic or None), ids or (), reason or None)
    missing = set(ids or ()) - {letter.id for letter in letters}
    if missing:
        raise Trouble(
            Exit.NOT_FOUND,
            f"no open letter {', '.join(sorted(missing))}",
            "`dead list` shows those there are",
        )
    return letters


def dry(letters: Sequence[Letter], verb: str, as_json: bool) -> None:
    """Count what would be done."""
    if as_json:
        show.plain({"would": verb, "letters": len(letters), "by_reason": counted(letters)})
        return
    counts = ((row["topic"], row["reason"], row["letters"]) for row in counted(letters))
    if letters:
        show.out.print(show.table("", ("topic", "reason", "letters"), counts))
    show.out.print(f"{show.counted(len(letters), 'letter')} would be {verb}; --yes does it")


def tell(done: "Sequence[Done]", said: str, as_json: bool) -> None:
    """`said` is what became of those that were not kept, in a person's words."""
    kept = [one for one in done if one.outcome == "kept"]
    if as_json:
        for one in done:
            show.plain({"letter": one.letter, "outcome": one.outcome, "why": one.why})
    else:
        show.out.print(f"{len(done) - len(kept)} {said}")
        if kept:
            show.out.print(f"{show.counted(len(kept), 'letter')} kept:")
        for one in kept:
            show.out.print(f"  {escape(one.letter)}: {escape(one.why)}")
    if kept:
        raise typer.Exit(int(Exit.SOME_FAILED))


def counted(letters: Sequence[Letter]) -> list[dict[str, str | int]]:
    return [
        {"topic": topic, "reason": reason, "letters": count}
        for (topic, reason), count in sorted(by_reason(letters).items())
    ]


def plain(row: "KeyRow") -> dict[str, str]:
    return {
        "id": row.id,
        "client": row.client_id,
        "name": row.name,
        "scopes": ",".join(sorted(row.scopes)),
        "created": row.created_at.isoformat(timespec="seconds"),
        "revoked": row.revoked_at.isoformat(timespec="seconds") if row.revoked_at else "",
    }


def named(profile: str) -> Profile:
    if profile not in ("laptop", "cluster"):
        raise typer.BadParameter("laptop or cluster", param_hint="--profile")
    return "cluster" if profile == "cluster" else "laptop"
