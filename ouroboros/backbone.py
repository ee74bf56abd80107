"""`ouroboros backbone import`: another network turns images into features."""

from dataclasses import dataclass
from pathlib import Path

from ouroboros.exits import Exit, Trouble
from ouroboros.home import Home
from ouroboros.serving import SETTING
from ouroboros.urls import signing_key
from services.preclassifier.importing import Options, package_backbone
from spine import packages
from spine.blobs import Blobs
from spine.onnxfile import Refused


@dataclass(frozen=True)
class Imported:
    """A backbone that the preclassifiers will use from their next start on."""

    prefix: str
    version: str
    feature_space: str
    dimension: int


def bring(home: Home, blobs: Blobs, file: Path, name: str, options: Options) -> Imported:
    """Check the file, publish it as a signed package, make it the home's setting. Raises
    Trouble."""
    try:
        model = file.read_bytes()
    except OSError as error:
        raise Trouble(Exit.UNUSABLE, f"{file}: {error.strerror}") from error
    try:
        package = package_backbone(name, model, options, {"source": file.name}, signing_key(home))
    except Refused as error:
        raise Trouble(Exit.UNUSABLE, f"{file.name} ({error.code}): {error}") from error
    prefix = packages.write(blobs, package)
    home.set(SETTING, prefix)
    manifest = package.manifest
    return Imported(
        prefix, manifest.version, manifest.feature_space, int(manifest.metrics["dimension"])
    )
