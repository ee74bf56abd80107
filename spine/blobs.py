"""The object store, by URL: `s3://bucket/prefix`, `file:///folder` or `memory://`.

Keys are made by us from ids; a key with a step up or an empty part is refused. All errors of the
store have three names: `Missing`, `Exists`, and ConnectionError for a store that is away.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store

CLIENT: Any = {"timeout": "10s", "connect_timeout": "2s"}
RETRY: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=8),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=2),
        "base": 2,
    },
}


class Missing(LookupError):
    """No object has this key."""


class Exists(Exception):
    """The key was to be new and is not."""


class BadKey(ValueError):
    """A key that we did not make."""


class Blobs:
    """Objects by key. Every call comes in two colours: plain for threads, `a…` for asyncio."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, key: str, body: bytes, *, create: bool = False) -> None:
        """Write the object; with `create` raise Exists where the key is taken."""
        with told():
            mode: Any = "create" if create else "overwrite"
            obstore.put(self._store, checked(key), body, mode=mode)

    def get(self, key: str) -> bytes:
        """The object. Raises Missing, ConnectionError."""
        with told():
            return obstore.get(self._store, checked(key)).bytes().to_bytes()

    def size(self, key: str) -> int:
        """Bytes of the object, without fetching it. Raises Missing, ConnectionError."""
        with told():
            return int(obstore.head(self._store, checked(key))["size"])

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is as good as removed."""
        with suppress(Missing), told():
            obstore.delete(self._store, checked(key))

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key below a prefix."""
        with told():
            for page in obstore.list(self._store, prefix):
                yield from (meta["path"] for meta in page)

    def folders(self, prefix: str) -> list[str]:
        """The folders right below a prefix, each with its whole path."""
        with told():
            return list(obstore.list_with_delimiter(self._store, prefix)["common_prefixes"])

    def exists(self, key: str) -> bool:
        with told():
            try:
                obstore.head(self._store, checked(key))
            except (FileNotFoundError, NotFoundError):
                return False
            return True

    async def aput(self, key: str, body: bytes, *, create: bool = False) -> None:
        with told():
            mode: Any = "create" if create else "overwrite"
            await obstore.put_async(self._store, checked(key), body, mode=mode)

    async def aget(self, key: str) -> bytes:
        with told():
            found = await obstore.get_async(self._store, checked(key))
            return (await found.bytes_async()).to_bytes()

    async def adelete(self, key: str) -> None:
        with suppress(Missing), told():
            await obstore.delete_async(self._store, checked(key))

    async def afolders(self, prefix: str) -> list[str]:
        with told():
            found = await obstore.list_with_delimiter_async(self._store, prefix)
            return list(found["common_prefixes"])

    async def aexists(self, key: str) -> bool:
        with told():
            try:
                await obstore.head_async(self._store, checked(key))
            except (FileNotFoundError, NotFoundError):
                return False
            return True


def open_blobs(url: str) -> Blobs:
    """The store at `url`. Raises ValueError that says what a URL looks like.

    S3's endpoint and credentials come from AWS's own variables (AWS_ENDPOINT_URL,
    AWS_ACCESS_KEY_ID …) or from the pod's identity.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return Blobs(MemoryStore())
    if parts.scheme == "file" and parts.path:
        os.makedirs(parts.path, exist_ok=True)
        return Blobs(LocalStore(prefix=parts.path))
    if parts.scheme == "s3" and parts.netloc:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
        client: Any = {**CLIENT, "allow_http": bool(endpoint and endpoint.startswith("http://"))}
        prefix = parts.path.strip("/") or None
        return Blobs(
            S3Store(
                parts.netloc, prefix=prefix, client_options=client, retry_config=RETRY, **options
            )
        )
    raise ValueError(f"{parts.scheme}://… is no object store; use s3://bucket or file:///folder")


def checked(key: str) -> str:
    """The key, where it is one that we could have made. Raises BadKey."""
    parts = key.split("/")
    if not key.isascii() or not key.isprintable() or any(p in ("", ".", "..") for p in parts):
        raise BadKey("not a key of ours: no empty part, step up or odd character may stand in it")
    return key


@contextmanager
def told() -> Iterator[None]:
    """Give the store's errors our names."""
    try:
        yield
    except (FileNotFoundError, NotFoundError) as error:
        raise Missing("no such object") from error
    except AlreadyExistsError as error:
        raise Exists("the key is taken") from error
    except BaseError as error:
        raise ConnectionError(f"object store: {type(error).__name__}") from error
