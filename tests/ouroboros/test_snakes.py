"""The drawn snakes: the same by seed, different by species, and photos that the pipeline takes."""

import hashlib
import io
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ouroboros.snakes import SPECIES, Species, draw, photo, random_species, write_folder
from ouroboros.snakes.drawing import lie_down, visible
from ouroboros.snakes.patterns import MARKS
from ouroboros.snakes.species import HEADS, PATTERNS, POSTURES
from spine.images import Limits, Preprocessing
from spine.pixels import prepare

SMALL = (160, 120)


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert photo(SPECIES[0], 3) == photo(SPECIES[0], 3)


def test_another_seed_or_another_name_gives_another_picture() -> None:
    seen = {hashlib.sha256(draw(s, n, SMALL).tobytes()).digest() for s in SPECIES for n in (0, 1)}
    renamed = draw(replace(SPECIES[0], name="Renamed"), 0, SMALL).tobytes()
    assert len(seen) == 18
    assert hashlib.sha256(renamed).digest() not in seen


def test_nine_species_differ_in_more_than_their_names() -> None:
    looks = {tuple(asdict(replace(s, name="")).items()) for s in SPECIES}
    assert len(looks) == len({s.slug for s in SPECIES}) == len(SPECIES) == 9
    for values in ([s.pattern for s in SPECIES], [s.ground for s in SPECIES]):
        assert len(set(values)) == 9
    assert {s.head for s in SPECIES} == set(HEADS)
    assert {s.posture for s in SPECIES} == set(POSTURES)


def test_a_photo_is_a_jpeg_without_metadata_that_the_pipeline_decodes() -> None:
    body = photo(SPECIES[8], 5)
    with Image.open(io.BytesIO(body)) as opened:
        assert (opened.format, opened.size, dict(opened.getexif())) == ("JPEG", (640, 480), {})
    decoded = prepare(body, Preprocessing(side=120, crop=1.0), Limits())
    assert decoded.pixels.shape == (120, 120, 3)


def test_photos_vary_in_quality() -> None:
    # The quantisation table stands after its marker, FF DB, a length and a number.
    bodies = [photo(SPECIES[0], n) for n in range(6)]
    assert len({body[body.index(b"\xff\xdb") :][5:69] for body in bodies}) > 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_shows_two_colours_on_the_body(pattern: str) -> None:
    base = replace(random_species(1), name="Tried", posture="s-curve", head="oval", gloss=0.0)
    tried = replace(base, pattern=pattern, period=1.6, duty=0.4, reach=0.8, collar=None, tail=None)
    plain = replace(tried, ground=(200, 30, 30), marks=(200, 30, 30), edge=(200, 30, 30))
    marked = replace(plain, marks=(30, 30, 200))
    changed = np.asarray(draw(marked, 0)) != np.asarray(draw(plain, 0))
    assert 0.001 < changed.any(2).mean() < 0.5
    assert set(MARKS) == set(PATTERNS)


@pytest.mark.parametrize("posture", POSTURES)
@pytest.mark.parametrize("slenderness", [13.0, 31.0])
def test_every_posture_shows_head_and_body_in_the_picture(posture: str, slenderness: float) -> None:
    kind = replace(random_species(2), posture=posture, slenderness=slenderness)
    for seed in range(12):
        body = lie_down(kind, np.random.default_rng(seed), (640, 480))
        nose = body.spine[-1]
        assert 0 <= nose[0] < 640 and 0 <= nose[1] < 480
        assert 0.04 * 480 < body.girth < 0.2 * 480
        assert 0.02 < len(visible(body, (640, 480)).pixel) / (640 * 480) < 0.5


def test_a_later_coil_lies_on_an_earlier_one() -> None:
    coiled = replace(SPECIES[1], posture="coiled")
    body = lie_down(coiled, np.random.default_rng(4), (640, 480))
    seen = visible(body, (640, 480))
    assert len(np.unique(seen.pixel)) == len(seen.pixel)
    x, y = body.spine[-1].astype(int)
    assert seen.order[y, x] > len(body.spine) - body.girth


def test_random_species_are_none_of_the_named_and_seldom_alike() -> None:
    drawn = [random_species(n) for n in range(60)]
    assert random_species(7) == drawn[7]
    assert not {s.name for s in drawn} & {s.name for s in SPECIES}
    assert len({(s.pattern, s.ground, s.marks) for s in drawn}) == 60
    assert {s.pattern for s in drawn} == set(PATTERNS)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_folder_a_class_is_written_the_same_by_one_process_or_two(
    tmp_path: Path, processes: int
) -> None:
    two: tuple[Species, ...] = SPECIES[:2]
    files = write_folder(tmp_path, two, 2, seed=10, processes=processes)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in files) == [
        "ember-ladderback/00010.jpg",
        "ember-ladderback/00011.jpg",
        "mossband-viper/00010.jpg",
        "mossband-viper/00011.jpg",
    ]
    assert files[3].read_bytes() == photo(SPECIES[1], 11)
