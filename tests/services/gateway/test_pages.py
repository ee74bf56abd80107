"""The API's page needs no host but the gateway."""

import asyncio
import re
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin

import httpx2

from services.gateway import http, pages

LOADED = re.compile(r'(?:src|href)="([^"]*)"')


def asked(*paths: str) -> list[httpx2.Response]:
    async def walk() -> list[httpx2.Response]:
        desk: Any = SimpleNamespace()
        transport = httpx2.ASGITransport(http.make(desk))
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(walk())


def test_the_page_names_no_other_host() -> None:
    (page,) = asked("/docs")
    assert "//" not in page.text
    assert '"validatorUrl": null' in page.text


def test_all_that_the_page_loads_is_served_by_the_gateway() -> None:
    (page,) = asked("/docs")
    loaded = [urljoin("/docs", path) for path in LOADED.findall(page.text)]
    assert len(loaded) == len(pages.KINDS)
    for path, told in zip(loaded, asked(*loaded), strict=True):
        assert told.status_code == 200, path
        assert told.headers["content-type"].startswith(pages.KINDS[path.rpartition("/")[2]])
    assert "url: 'openapi.json'" in page.text


def test_the_page_understands_the_version_of_our_document() -> None:
    (told,) = asked("/openapi.json")
    assert told.json()["openapi"].startswith("3.1")
    script = pages.asset("swagger-ui-bundle.js")
    assert script is not None and b"openapis.org/oas/3.1" in script


def test_nothing_else_of_the_package_is_served() -> None:
    for told in asked("/docs/__init__.py", "/docs/..%2fmain.py", "/docs/nothing"):
        assert told.status_code == 404
        assert told.json()["code"]
    assert pages.asset("../main.py") is None
