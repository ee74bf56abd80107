"""fit, backbone import."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ouroboros import show, system
from ouroboros.commands.running import AsJson
from ouroboros.exits import Exit, Trouble
from ouroboros.home import Home

if TYPE_CHECKING:
    from ouroboros.fitting import Champion

Mean = Annotated[str, typer.Option(help="Three numbers; (x / 255 - mean) / std.")]

# Metrics for those who look into the fit; `--json` has them. (`images` stands there already.)
DETAILS = ("images", "penalty", "temperature", "parity")


class Shown:
    """The progress of a fit, on standard error."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def stage(self, text: str) -> None:
        if not self.quiet:
            show.err.print(f"… {text}", soft_wrap=True)

    def images(self, total: int) -> AbstractContextManager[Callable[[int], None]]:
        return show.bar("features", total, self.quiet)


def fit(
    folder: Annotated[Path, typer.Argument(help="A folder for each class, with its photos.")],
    model: Annotated[str, typer.Option(help="Name of the model, e.g. snakes.")],
    seed: Annotated[int, typer.Option(help="Of the folds; the same seed, the same model.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a model on a folder of photos and make it the champion that is served."""
    from ouroboros import fitting  # scipy takes a second to import

    home = Home.here()
    settings = system.reachable(home)
    wanted = system.replicas(home, "classifier")
    champion = fitting.fit(
        home, settings, fitting.Request(folder, model, seed), Shown(as_json), wanted
    )
    if as_json:
        show.plain(champion.plain())
        return
    tell(champion)
    show.out.print(f"next: {show.called()} submit PHOTO --model {champion.promoted.name}")


def tell(champion: "Champion") -> None:
    """What was fitted: how well it does on images that it had not seen, by cross-validation."""
    promoted = champion.promoted
    show.out.print(show.table(f"{promoted.name} {promoted.version}", ("", ""), facts(champion)))
    if champion.left_out:
        show.out.print(
            show.table("left out", ("photo", "reason"), champion.left_out[:20]), soft_wrap=True
        )


def facts(champion: "Champion") -> Iterator[tuple[str, str]]:
    yield "images", f"{champion.images}, left out {champion.unread}"
    yield "classes", str(len(champion.labels))
    for name, value in champion.metrics.items():
        if isinstance(value, int | float) and name not in DETAILS:
            yield name, f"{value:.3f}" if isinstance(value, float) else str(value)
    recall: dict[str, Any] = champion.metrics.get("recall") or {}
    if recall:
        worst = min(recall, key=lambda label: float(recall[label]))
        yield "lowest recall", f"{recall[worst]:.2f} ({worst})"
    yield "feature space", champion.promoted.feature_space
    yield "served by", f"{champion.replicas} classifiers"


def backbone_import(  # noqa: PLR0913 (an argument is an option)
    file: Annotated[Path, typer.Argument(help="An ONNX file: one image input, one embedding.")],
    name: Annotated[str, typer.Option(help="Of the backbone.")] = "",
    output: Annotated[str, typer.Option(help="Of the network: the embedding.")] = "embedding",
    side: Annotated[int, typer.Option(min=0, help="Of its images, where the file has none.")] = 0,
    crop: Annotated[float, typer.Option(min=0.3, max=1, help="Share of the shorter side.")] = 0.875,
    mean: Mean = "0,0,0",
    std: Mean = "1,1,1",
    bgr: Annotated[bool, typer.Option(help="The network wants blue first.")] = False,
    restart: Annotated[bool, typer.Option(help="Restart the preclassifiers that run here.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check a network, publish it, and let the preclassifiers use it."""
    from ouroboros.backbone import bring  # as above
    from services.preclassifier.importing import Options
    from spine.blobs import open_blobs

    home = Home.here()
    home.make()
    settings = system.stored(home)
    options = Options(output, side or None, crop, "bgr" if bgr else "rgb", three(mean), three(std))
    found = bring(home, open_blobs(settings.blobs_url), file, name or slug(file), options)
    running = home.running() is not None
    if running and restart:
        with show.doing("restarting the preclassifiers", quiet=as_json) as doing:
            system.restart_service(home, "preclassifier", doing)
    if as_json:
        show.plain({**found.__dict__, "restarted": running and restart})
        return
    show.out.print(
        f"{found.prefix}: {found.dimension} numbers, feature space {found.feature_space}",
        soft_wrap=True,
    )
    if running and not restart:
        show.out.print("The preclassifiers take it up at their next start.")
    show.out.print(
        "Models of another feature space answer nothing until they are fitted again: "
        "`ouroboros fit FOLDER --model NAME`.",
        soft_wrap=True,
    )


def three(text: str) -> tuple[float, float, float]:
    """Three numbers by comma. Raises typer's BadParameter."""
    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: three numbers, like 0.485,0.456,0.406") from None
    return first, second, third


def slug(file: Path) -> str:
    """A name that a package may have."""
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in file.stem.lower()).strip("-")
    if not kept:
        raise Trouble(Exit.USAGE, f"{file.name} makes no name", "give one with --name")
    return kept[:64]
