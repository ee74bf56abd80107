"""`ouroboros`: the command line."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import structlog
import typer
from typer.core import TyperGroup

from ouroboros import show
from ouroboros.commands import demo, images, models, operate, running
from ouroboros.exits import MEANING, Exit, Trouble
from ouroboros.parts import PartFailed, PartMissing
from spine.log import Fatal
from spine.settings import BadSettings

EPILOG = "Exit codes: " + ", ".join(f"{code.value} {text}" for code, text in MEANING.items()) + "."


class Told(TyperGroup):
    """Errors that a person can do something about end a command with their words and their code;
    anything else is a defect, and shows itself whole."""

    def invoke(self, ctx: Any) -> Any:
        as_json = "--json" in (*ctx._protected_args, *ctx.args)
        try:
            return super().invoke(ctx)
        except Trouble as error:
            told = error
        except PartMissing as error:
            told = Trouble(Exit.PART_MISSING, str(error))
        except PartFailed as error:
            told = Trouble(Exit.NOT_READY, str(error))
        except BadSettings as error:
            told = Trouble(Exit.USAGE, str(error))
        except (ConnectionError, TimeoutError, Fatal) as error:
            told = Trouble(Exit.AWAY, str(error), "`ouroboros status` says what runs")
        except KeyboardInterrupt:
            raise typer.Exit(int(Exit.INTERRUPTED)) from None
        show.trouble(told, as_json)
        raise typer.Exit(int(told.code))


def quiet() -> None:
    """The library's log lines would stand between the answers: only errors, on standard error."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


app = typer.Typer(
    cls=Told,
    name="ouroboros",
    help="Image classification at scale by a model that never stops learning.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ouroboros {version('ouroboros')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=say_version, is_eager=True, help="Say it and end."),
    ] = False,
) -> None:
    """Image classification at scale by a model that never stops learning."""


COMMANDS: tuple[Callable[..., None], ...] = (
    *(running.up, running.down, running.status, demo.demo),
    *(images.submit, images.result, images.watch, models.fit),
)
for command in COMMANDS:
    app.command()(command)
# Its options are the benchmark's own.
passed_on = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command(context_settings=passed_on)(operate.bench)


def group(name: str, text: str, commands: Sequence[Any]) -> None:
    made = typer.Typer(help=text, no_args_is_help=True)
    for named in commands:
        made.command(named.__name__.removeprefix(f"{name}_").removesuffix("_"))(named)
    app.add_typer(made, name=name)


group("backbone", "The network that turns images into features.", (models.backbone_import,))
group(
    "dead",
    "Dead letters: events that could not be handled.",
    (operate.dead_list, operate.dead_show, operate.dead_replay, operate.dead_discard),
)
group("topics", "Kafka's topics by the table.", (operate.topics_apply, operate.topics_check))
group(
    "keys",
    "API keys of the gateway.",
    (operate.keys_create, operate.keys_list, operate.keys_revoke),
)


def main() -> None:
    # Threads of the linear algebra wait by spinning: on matrices as small as a head's they cost
    # a busy machine a minute and gain nothing. Read once, when numpy is first imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    quiet()
    app()


if __name__ == "__main__":
    main()
