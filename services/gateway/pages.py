"""The API's page: Swagger UI out of a package, so that it shows where there is no other network."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

PACKAGE = "fastapi_swagger"
# File by file, with its media type: what is not named here is not served.
KINDS: Mapping[str, str] = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
# Null: else a public site is asked whether the document is sound.
PARAMETERS: Mapping[str, Any] = {"validatorUrl": None}


def asset(name: str) -> bytes | None:
    """A file of Swagger UI; None where there is none of that name."""
    if name not in KINDS:
        return None
    return files(PACKAGE).joinpath("resources", name).read_bytes()
