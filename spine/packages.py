"""A model package: a manifest, one ONNX file, golden inputs; immutable, named by its hash, signed.

It lies under `models/<name>/<version>/` of the object store, or in a folder. The manifest is
written last, so what has a manifest is whole; its signature covers the sha256 of every file.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError

from spine.blobs import Blobs, Exists, Missing
from spine.onnxfile import MAX_BYTES
from spine.onnxfile import Refused as Refused
from spine.onnxfile import check_onnx as check_onnx

FORMAT = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
GOLDEN = "golden.json"
MAX_MANIFEST_BYTES = 1024 * 1024
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FILE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
# What makes a version; who trained it, when and how well changes nothing that is served.
CONTENT = (
    "format", "name", "kind", "feature_space", "files", "input", "output", "preprocessing",
    "labels", "thresholds",
)  # fmt: skip

Kind = Literal["head", "backbone"]
Key = Ed25519PrivateKey


class Tensor(BaseModel):
    """One input or output of the model; a named dimension (`batch`) is dynamic."""

    model_config = ConfigDict(frozen=True)
    name: str
    dtype: str
    shape: tuple[int | str, ...]


class About(BaseModel):
    """What a package's maker says of the model."""

    model_config = ConfigDict(frozen=True)
    input: Tensor
    # Of a backbone the embedding, of a head the probabilities.
    output: Tensor
    preprocessing: dict[str, Any] = {}
    labels: tuple[str, ...] = ()
    # What `unknown` means, e.g. `energy`, `distance`; they are in the ONNX, here for people.
    thresholds: dict[str, float] = {}
    metrics: dict[str, Any] = {}
    lineage: dict[str, Any] = {}


class Signature(BaseModel):
    """Ed25519 over the canonical JSON of the manifest without this field; both in hex."""

    model_config = ConfigDict(frozen=True)
    key: str
    value: str


class Manifest(About):
    """`manifest.json`."""

    format: Literal[1] = 1
    name: str
    kind: Kind
    version: str
    feature_space: str
    files: dict[str, str]  # sha256 by name
    created_at: datetime
    signature: Signature | None = None


@dataclass(frozen=True)
class Package:
    """A manifest and the bytes of its files by name; `sealed` is the manifest as it was signed."""

    manifest: Manifest
    files: Mapping[str, bytes]
    sealed: bytes

    @property
    def prefix(self) -> str:
        return prefix_of(self.manifest.name, self.manifest.version)

    @property
    def model(self) -> bytes:
        return self.files[MODEL]

    @property
    def golden(self) -> bytes:
        return self.files[GOLDEN]


def prefix_of(name: str, version: str) -> str:
    return f"models/{name}/{version}"


def feature_space(
    backbone_sha256: str, preprocessing: Mapping[str, Any], output: str, dtype: str, normalise: str
) -> str:
    """The name of a feature space, `fs-` and twelve hex digits: all that makes an embedding what
    it is. Two embeddings of different spaces are never compared, whatever their length."""
    return "fs-" + short([backbone_sha256, dict(preprocessing), output, dtype, normalise])


def build(
    kind: Kind,
    name: str,
    files: Mapping[str, bytes],
    about: About,
    feature_space: str,
    sign: Key | None = None,
) -> Package:
    """A package of `files` (`model.onnx`, `golden.json`). Raises Refused where its reader would."""
    raw: dict[str, Any] = about.model_dump(mode="json")
    raw |= {"format": FORMAT, "name": name, "kind": kind, "feature_space": feature_space}
    raw["files"] = {file: sha256(body) for file, body in files.items()}
    raw["version"] = version_of(raw)
    raw["created_at"] = datetime.now(UTC).isoformat()
    if sign is not None:
        signed = sign.sign(canonical(raw)).hex()
        raw["signature"] = {"key": public_of(sign), "value": signed}
    keys = None if sign is None else {public_of(sign)}
    return _read(lambda file, _: {MANIFEST: dumped(raw), **files}[file], keys, MAX_BYTES)


def write(blobs: Blobs, package: Package) -> str:
    """Publish it, the manifest last; its prefix. Writing the same version again serves the same
    content under the new manifest: signed by today's key, and whole. Raises ConnectionError."""
    for file, body in package.files.items():
        try:
            blobs.put(f"{package.prefix}/{file}", body, create=True)
        except Exists:
            # The version fixes the bytes: what else lies there is damage.
            if blobs.get(f"{package.prefix}/{file}") != body:
                blobs.put(f"{package.prefix}/{file}", body)
    blobs.put(f"{package.prefix}/{MANIFEST}", package.sealed)
    return package.prefix


def read(
    blobs: Blobs, prefix: str, public_keys: Collection[str], max_bytes: int = MAX_BYTES
) -> Package:
    """The package at `models/<name>/<version>`, verified. Raises Refused, ConnectionError."""

    def fetch(file: str, most: int) -> bytes:
        try:
            size = blobs.size(f"{prefix}/{file}")
            capped(file, size, most)
            return blobs.get(f"{prefix}/{file}")
        except Missing:
            raise Refused("package.missing", f"{prefix} has no {file}") from None

    package = _read(fetch, public_keys, max_bytes)
    if package.prefix != prefix:
        raise Refused("package.name", f"{prefix} holds the package {package.prefix}")
    return package


def read_folder(
    path: Path, public_keys: Collection[str] | None, max_bytes: int = MAX_BYTES
) -> Package:
    """The package in a folder. With no keys at all (None) only hashes are checked: for the one
    that ships with the code, which is trusted as the code is. Raises Refused."""

    def fetch(file: str, most: int) -> bytes:
        try:
            if (path / file).is_symlink():
                raise Refused("package.symlink", f"{file} is a link; a package holds plain files")
            capped(file, (path / file).stat().st_size, most)
            return (path / file).read_bytes()
        except OSError:
            raise Refused("package.missing", f"{path} has no readable {file}") from None

    return _read(fetch, public_keys, max_bytes)


def write_folder(path: Path, package: Package) -> None:
    """Write the files, then the manifest."""
    path.mkdir(parents=True, exist_ok=True)
    for file, body in package.files.items():
        (path / file).write_bytes(body)
    (path / MANIFEST).write_bytes(package.sealed)


def new_key() -> Key:
    return Ed25519PrivateKey.generate()


def public_of(key: Key) -> str:
    """The public key in hex, as `OUROBOROS_MODEL_KEYS` wants it."""
    return key.public_key().public_bytes_raw().hex()


def save_key(path: Path, key: Key) -> None:
    """Write the private key in hex, readable by its owner alone. Raises FileExistsError."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(key.private_bytes_raw().hex() + "\n")


def load_key(source: Path | str) -> Key:
    """A private key from a file or from its hex. Raises ValueError, OSError."""
    text = source.read_text() if isinstance(source, Path) else source
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text.strip()))
    except ValueError:
        raise ValueError("no Ed25519 private key: 64 hex digits are one") from None


def public_keys(text: str) -> frozenset[str]:
    """The keys of a comma-separated setting. Raises ValueError."""
    found = frozenset(part.strip().lower() for part in text.split(",") if part.strip())
    if any(re.fullmatch(r"[0-9a-f]{64}", key) is None for key in found):
        raise ValueError("a public key is 64 hex digits")
    return found


def _read(
    fetch: Callable[[str, int], bytes], keys: Collection[str] | None, max_bytes: int
) -> Package:
    sealed = fetch(MANIFEST, MAX_MANIFEST_BYTES)
    raw = parsed(sealed)
    manifest = validated(raw)
    if keys is not None:
        check_signature(raw, keys)
    files = {}
    for file, expected in manifest.files.items():
        body = fetch(file, max_bytes)
        if sha256(body) != expected:
            raise Refused("package.hash", f"{file} is not what the manifest names: cut or changed")
        files[file] = body
    check_onnx(files[MODEL], max_bytes)
    return Package(manifest, files, sealed)


def parsed(body: bytes) -> dict[str, Any]:
    capped(MANIFEST, len(body), MAX_MANIFEST_BYTES)
    try:
        raw = json.loads(body, parse_constant=no_number)
    except (ValueError, RecursionError):
        raise Refused("package.malformed", f"{MANIFEST} is no JSON: cut or changed") from None
    if not isinstance(raw, dict):
        raise Refused("package.malformed", f"{MANIFEST} is no JSON object")
    if raw.get("format") != FORMAT:
        raise Refused("package.format", f"format {raw.get('format')!r:.20}; we read {FORMAT}")
    return raw


def validated(raw: dict[str, Any]) -> Manifest:
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused("package.malformed", f"{MANIFEST}: {where}: {first['msg']}") from None
    if not NAME.fullmatch(manifest.name) or not all(map(FILE.fullmatch, manifest.files)):
        raise Refused("package.name", "a name or a file's name is not one of ours")
    if {MODEL, GOLDEN} - set(manifest.files):
        raise Refused("package.missing", f"the manifest names no {MODEL} or no {GOLDEN}")
    if manifest.version != version_of(raw):
        raise Refused("package.version", "the version is not the hash of the content")
    return manifest


def check_signature(raw: Mapping[str, Any], keys: Collection[str]) -> None:
    signature = raw.get("signature")
    if signature is None:
        raise Refused("package.unsigned", "the manifest bears no signature")
    if signature["key"] not in keys:
        raise Refused("package.key", f"signed by {signature['key']:.16}…, which is not trusted")
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["key"]))
        unsigned = {name: value for name, value in raw.items() if name != "signature"}
        public.verify(bytes.fromhex(signature["value"]), canonical(unsigned))
    except (InvalidSignature, ValueError):
        raise Refused("package.signature", "the signature does not fit the manifest") from None


def no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def capped(file: str, size: int, most: int) -> None:
    if size > most:
        raise Refused("package.size", f"{file} has {size} bytes, at most {most} are allowed")


def version_of(raw: Mapping[str, Any]) -> str:
    return short({name: raw.get(name) for name in CONTENT})


def short(value: Any) -> str:
    return sha256(canonical(value))[:12]


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON that has one form only: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def dumped(raw: Mapping[str, Any]) -> bytes:
    return json.dumps(raw, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
