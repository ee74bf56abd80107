"""F29: a package that is cut, changed, unsigned or somebody else's is refused before it is used."""

import json

import pytest

from spine import packages
from spine.blobs import Blobs, open_blobs
from spine.packages import GOLDEN, MANIFEST, MODEL, About, Package, Refused, Tensor
from tests.spine.models import doubling

KEY = packages.new_key()
KEYS = {packages.public_of(KEY)}
ABOUT = About(
    input=Tensor(name="x", dtype="float32", shape=("batch", 2)),
    output=Tensor(name="y", dtype="float32", shape=("batch", 2)),
    labels=("adder", "boa"),
    metrics={"accuracy": 0.9},
)
FILES = {MODEL: doubling().SerializeToString(), GOLDEN: b"{}"}


def made(key: packages.Key | None = KEY, about: About = ABOUT) -> Package:
    return packages.build("head", "snakes", FILES, about, "fs-0", key)


@pytest.fixture
def blobs() -> Blobs:
    return open_blobs("memory://")


def changed(blobs: Blobs, package: Package, **fields: object) -> None:
    raw = json.loads(package.sealed)
    blobs.put(f"{package.prefix}/{MANIFEST}", json.dumps({**raw, **fields}).encode())


def refused(blobs: Blobs, prefix: str, keys: set[str] = KEYS, **more: int) -> str:
    with pytest.raises(Refused) as caught:
        packages.read(blobs, prefix, keys, **more)
    return caught.value.code


def test_what_is_written_is_read(blobs, tmp_path):
    package = made()
    prefix = packages.write(blobs, package)
    assert prefix == f"models/snakes/{package.manifest.version}"
    assert packages.read(blobs, prefix, KEYS) == package
    packages.write_folder(tmp_path / "package", package)
    assert packages.read_folder(tmp_path / "package", KEYS) == package


def test_the_version_is_made_of_the_content_alone():
    better = ABOUT.model_copy(update={"metrics": {"accuracy": 0.99}})
    other = ABOUT.model_copy(update={"labels": ("adder", "cobra")})
    assert made().manifest.version == made(packages.new_key(), better).manifest.version
    assert made().manifest.version != made(about=other).manifest.version


def test_the_same_version_under_a_new_key_is_readable_by_that_key(blobs):
    new = packages.new_key()
    first, second = made(), made(new)
    packages.write(blobs, first)
    assert refused(blobs, first.prefix, {packages.public_of(new)}) == "package.key"
    assert packages.write(blobs, second) == first.prefix
    assert packages.read(blobs, first.prefix, {packages.public_of(new)}) == second


@pytest.mark.parametrize("file", [MODEL, GOLDEN, MANIFEST])
def test_writing_again_heals_a_damaged_file(blobs, file):
    package = made()
    packages.write(blobs, package)
    blobs.put(f"{package.prefix}/{file}", b"damage")
    packages.write(blobs, package)
    assert packages.read(blobs, package.prefix, KEYS) == package


def test_the_manifest_is_written_last(blobs, monkeypatch):
    written: list[str] = []
    put = blobs.put
    monkeypatch.setattr(
        blobs, "put", lambda name, *rest, **more: (written.append(name), put(name, *rest, **more))
    )
    packages.write(blobs, made())
    assert written[-1].endswith(MANIFEST)
    assert len(written) == 3


def test_a_package_without_its_manifest_is_not_there_yet(blobs):
    package = made()
    packages.write(blobs, package)
    blobs.delete(f"{package.prefix}/{MANIFEST}")
    assert refused(blobs, package.prefix) == "package.missing"


@pytest.mark.parametrize("file", [MODEL, GOLDEN])
def test_a_truncated_file_is_refused(blobs, file):
    package = made()
    packages.write(blobs, package)
    blobs.put(f"{package.prefix}/{file}", package.files[file][:-1])
    assert refused(blobs, package.prefix) == "package.hash"


def test_a_truncated_manifest_is_refused(blobs):
    package = made()
    packages.write(blobs, package)
    blobs.put(f"{package.prefix}/{MANIFEST}", package.sealed[:-30])
    assert refused(blobs, package.prefix) == "package.malformed"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"signature": None}, "package.unsigned"),
        ({"metrics": {"accuracy": 1.0}}, "package.signature"),
        ({"labels": ["boa", "adder"]}, "package.version"),
        ({"format": 2}, "package.format"),
        ({"files": {MODEL: "0"}}, "package.missing"),
        ({"files": {"../../x": "0"}}, "package.name"),
        ({"name": "../x"}, "package.name"),
        ({"input": "x"}, "package.malformed"),
    ],
)
def test_a_changed_manifest_is_refused(blobs, fields, code):
    package = made()
    packages.write(blobs, package)
    changed(blobs, package, **fields)
    assert refused(blobs, package.prefix) == code


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"format": NaN}', b"[" * 100_000, b"\xff"])
def test_a_manifest_that_is_none_is_refused(blobs, body):
    package = made()
    packages.write(blobs, package)
    blobs.put(f"{package.prefix}/{MANIFEST}", body)
    assert refused(blobs, package.prefix) in ("package.malformed", "package.format")


def test_an_unsigned_package_and_one_of_an_unknown_key_are_refused(blobs):
    prefix = packages.write(blobs, made(packages.new_key()))
    assert refused(blobs, prefix) == "package.key"
    blobs.delete(f"{prefix}/{MANIFEST}")
    packages.write(blobs, made(None))
    assert refused(blobs, prefix) == "package.unsigned"


@pytest.mark.parametrize(
    "signature",
    [{"value": "00" * 64}, {"value": "no hex"}],
)
def test_a_wrong_signature_is_refused(blobs, signature):
    package = made()
    packages.write(blobs, package)
    changed(blobs, package, signature={"key": packages.public_of(KEY), **signature})
    assert refused(blobs, package.prefix) == "package.signature"


def test_a_package_at_the_place_of_another_is_refused(blobs):
    package = made()
    packages.write(blobs, package)
    for file in (MODEL, GOLDEN, MANIFEST):
        blobs.put(f"models/lizards/1/{file}", blobs.get(f"{package.prefix}/{file}"))
    assert refused(blobs, "models/lizards/1") == "package.name"


def test_size_is_judged_before_a_file_is_fetched(blobs):
    package = made()
    packages.write(blobs, package)
    assert refused(blobs, package.prefix, max_bytes=10) == "package.size"
    blobs.put(f"{package.prefix}/{MANIFEST}", b" " * (packages.MAX_MANIFEST_BYTES + 1))
    assert refused(blobs, package.prefix) == "package.size"


def test_a_hostile_model_is_refused_even_where_it_is_signed():
    files = {**FILES, MODEL: doubling(domain="com.evil").SerializeToString()}
    with pytest.raises(Refused, match="domain"):
        packages.build("head", "snakes", files, ABOUT, "fs-0", KEY)


def test_the_shipped_package_needs_no_signature_but_its_hashes(tmp_path):
    packages.write_folder(tmp_path, made(None))
    assert packages.read_folder(tmp_path, None).manifest.signature is None
    with pytest.raises(Refused, match="signature"):
        packages.read_folder(tmp_path, KEYS)
    (tmp_path / MODEL).write_bytes(b"other")
    with pytest.raises(Refused, match=MODEL):
        packages.read_folder(tmp_path, None)


def test_a_link_in_a_folder_is_refused(tmp_path):
    packages.write_folder(tmp_path / "package", made())
    model = tmp_path / "package" / MODEL
    model.rename(tmp_path / "outside")
    model.symlink_to(tmp_path / "outside")
    with pytest.raises(Refused) as caught:
        packages.read_folder(tmp_path / "package", KEYS)
    assert caught.value.code == "package.symlink"


def test_a_folder_without_a_file_is_refused(tmp_path):
    packages.write_folder(tmp_path, made())
    (tmp_path / GOLDEN).unlink()
    with pytest.raises(Refused) as caught:
        packages.read_folder(tmp_path, KEYS)
    assert caught.value.code == "package.missing"


def test_keys_survive_a_file_and_are_their_owners_alone(tmp_path):
    path = tmp_path / "key"
    packages.save_key(path, KEY)
    assert path.stat().st_mode & 0o777 == 0o600
    assert packages.public_of(packages.load_key(path)) == packages.public_of(KEY)
    assert packages.public_of(packages.load_key(path.read_text())) == packages.public_of(KEY)
    with pytest.raises(FileExistsError):
        packages.save_key(path, KEY)


@pytest.mark.parametrize("text", ["", "xyz", "00" * 31])
def test_what_is_no_key_is_told(text):
    with pytest.raises(ValueError, match="64 hex digits"):
        packages.load_key(text)


def test_public_keys_of_a_setting():
    one = packages.public_of(KEY)
    assert packages.public_keys(f" {one.upper()}, ,{one}") == {one}
    assert packages.public_keys("") == frozenset()
    with pytest.raises(ValueError, match="64 hex digits"):
        packages.public_keys("abc")


def test_a_feature_space_changes_with_all_that_makes_it():
    made_of = ("ab" * 32, {"size": 224, "decoder": 1}, "embedding", "float32", "none")
    space = packages.feature_space(*made_of)
    assert space == packages.feature_space(*made_of)
    assert len(space) == 15
    changes = ("cd" * 32, {"size": 160, "decoder": 1}, "probs", "float16", "l2")
    others = {
        packages.feature_space(*(c if at == n else m for n, m in enumerate(made_of)))
        for at, c in enumerate(changes)
    }
    assert len(others | {space}) == 6
