"""Train the backbone that ships: a small CNN taught on drawn snakes, none of the named species.

    python bench/train_backbone.py OUT [--steps 1000] [--minutes 60] [--seed 11]

It needs the project (`pip install .[laptop]`) and, in an environment of its own, `torch` and
`onnxscript`; nothing else of the project imports torch. A run takes a quarter of an hour on two
cores: draw the school set, learn, export ONNX, judge it on the named species through the pipeline's
own decoder, and write OUT: `model.onnx`, `figures.json` and the package in `OUT/backbone`.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ouroboros.snakes import SPECIES, Species, draw, photo, random_species, scenery
from ouroboros.snakes.species import HEADS, PATTERNS
from services.preclassifier.backbone import infer
from services.preclassifier.importing import Options, package_backbone
from services.trainer.fit import fit
from spine.images import Limits, Preprocessing
from spine.inference import session_of
from spine.packages import write_folder
from spine.pixels import prepare

SIDE, WIDE, CHANNELS, EMBEDDING = 120, 160, (24, 40, 64, 96, 160), 192
SPECIES_TAUGHT, PHOTOS_EACH, THINGS_TAUGHT, JUDGED_EACH = 400, 36, 40, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=60, help="stop earlier after so long")
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    images = school(options.out / "school.npy")
    net, recipe = learn(images, options.steps, options.minutes * 60, options.seed)
    export(net, options.out / "model.onnx")
    figures = judge(options.out / "model.onnx")
    told = {"recipe": recipe, "figures": figures}
    (options.out / "figures.json").write_text(json.dumps(told, indent=1))
    print(json.dumps(told, indent=1))
    pack(options.out, told)


# The school set: classes that nobody named, and things that are no snakes.


def school(file: Path) -> np.ndarray:
    """uint8 [classes, PHOTOS_EACH, SIDE, WIDE, 3], drawn once."""
    if not file.exists():
        with ProcessPoolExecutor(2) as pool:
            classes = []
            for lesson in pool.map(draw_class, range(SPECIES_TAUGHT + THINGS_TAUGHT)):
                classes.append(lesson)
                print(f"\rdrawing class {len(classes)}", end="", flush=True)
        np.save(file, np.stack(classes))
    return np.load(file)


def draw_class(number: int) -> np.ndarray:
    pictures = []
    for seed in range(PHOTOS_EACH):
        if number < SPECIES_TAUGHT:
            picture = draw(random_species(number), seed, (2 * WIDE, 2 * SIDE))
        else:
            picture = draw_thing(number, seed)
        pictures.append(np.asarray(picture.reduce(2)))
    return np.stack(pictures)


def draw_thing(number: int, seed: int) -> Image.Image:
    """Shapes of one kind, count and colours on any ground, so that other images differ too."""
    kind, rng = np.random.default_rng(number), np.random.default_rng([number, seed])
    image = scenery.ground(rng, (2 * WIDE, 2 * SIDE))
    pen = ImageDraw.Draw(image)
    fill, line = (tuple(int(c) for c in kind.integers(0, 256, 3)) for _ in range(2))
    count, corners, stretch = kind.integers(1, 9), kind.integers(3, 9), kind.uniform(0.3, 1)
    for _ in range(count):
        angle = np.sort(rng.random(corners)) * 2 * np.pi
        shape = np.stack([np.cos(angle), stretch * np.sin(angle)], 1) * rng.uniform(20, 70)
        place = rng.random(2) * [WIDE, SIDE] + [WIDE / 2, SIDE / 2]
        pen.polygon(
            scenery.flat(shape + place), fill=fill, outline=line, width=int(kind.integers(1, 9))
        )
    return scenery.develop(rng, np.array(image, np.float32))


def traits() -> tuple[Tensor, Tensor]:
    """What each taught species looks like: [n, 2] pattern and head; [n, 8] colours and measures."""
    taught = [random_species(n) for n in range(SPECIES_TAUGHT)]
    kinds = [[PATTERNS.index(s.pattern), HEADS.index(s.head)] for s in taught]
    colours = [[*s.ground, *s.marks] for s in taught]
    measures = [[s.period / 2.8, s.slenderness / 31] for s in taught]
    return torch.tensor(kinds), torch.cat([torch.tensor(colours) / 255, torch.tensor(measures)], 1)


# The network and its lessons.


class Block(nn.Module):
    """Halve the picture, then one residual pair of convolutions."""

    def __init__(self, narrow: int, broad: int) -> None:
        super().__init__()
        self.down = conv(narrow, broad, 3, 2)
        self.one, self.other = conv(broad, broad, 3, 1), conv(broad, broad, 3, 1, bare=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return torch.relu(x + self.other(self.one(x)))


class Net(nn.Module):
    """uint8 [n, SIDE, SIDE, 3] RGB to float32 [n, EMBEDDING] of one length, the root of EMBEDDING.

    The last map is read by its maximum and by `LOOKS` learnt glances at where the animal is.
    """

    LOOKS = 3

    def __init__(self) -> None:
        super().__init__()
        stem, one, two, three, last = CHANNELS
        self.body = nn.Sequential(
            conv(3, stem, 5, 2), Block(stem, one), Block(one, two), Block(two, three),
            conv(three, last, 1, 1),
        )  # fmt: skip
        self.look = nn.Conv2d(last, self.LOOKS, 1)
        pooled = last * (self.LOOKS + 1)
        # Centred, so that the angle between two species says how they differ, not what all share.
        self.embed = nn.Sequential(
            nn.BatchNorm1d(pooled), nn.Linear(pooled, EMBEDDING),
            nn.BatchNorm1d(EMBEDDING, affine=False),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        x = image.float().permute(0, 3, 1, 2) * (1 / 64) - 2
        seen = self.body(x.contiguous(memory_format=torch.channels_last)).flatten(2)
        where = torch.softmax(self.look(seen.unsqueeze(3)).flatten(2), 2)
        glances = torch.matmul(where, seen.transpose(1, 2)).flatten(1)
        embedding = self.embed(torch.cat([seen.amax(2), glances], 1))
        return nn.functional.normalize(embedding, eps=1e-6) * EMBEDDING**0.5


def conv(narrow: int, broad: int, width: int, stride: int, bare: bool = False) -> nn.Sequential:
    parts = [
        nn.Conv2d(narrow, broad, width, stride, width // 2, bias=False), nn.BatchNorm2d(broad)
    ]  # fmt: skip
    return nn.Sequential(*parts) if bare else nn.Sequential(*parts, nn.ReLU())


def learn(
    images: np.ndarray, steps: int, seconds: float, seed: int, batch: int = 64
) -> tuple[Net, dict[str, Any]]:
    """Tell the classes apart by angle, and read pattern, head, colours and measures off a snake."""
    net, (kinds, measures) = Net(), traits()
    classes = nn.Parameter(torch.randn(len(images), EMBEDDING))
    reader = nn.Linear(EMBEDDING, len(PATTERNS) + len(HEADS) + measures.shape[1])
    weights = [*net.parameters(), classes, *reader.parameters()]
    optimiser = torch.optim.AdamW(weights, 4e-3, weight_decay=0.02)
    rng, start, smooth = np.random.default_rng(seed), time.monotonic(), 0.0
    for step, (x, y) in enumerate(lessons(images, steps, batch, rng)):
        took = time.monotonic() - start
        done = max(step / steps, took / seconds)
        if done >= 1:
            break
        optimiser.param_groups[0]["lr"] = 4e-3 * min(done / 0.1, (1 - done) / 0.9, 1) + 1e-5
        embedding = net(x)
        loss = by_angle(embedding, classes, y) + by_traits(reader(embedding), y, kinds, measures)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        smooth = 0.98 * smooth + 0.02 * loss.item() if step else loss.item()
        print(f"\rstep {step + 1}/{steps}  loss {smooth:.3f}  {took:.0f} s", end="", flush=True)
    print()
    recipe = {
        "seed": seed, "steps": step, "batch": batch, "species": SPECIES_TAUGHT,
        "things": THINGS_TAUGHT, "photos_each": PHOTOS_EACH, "loss": round(smooth, 3),
        "seconds": round(took), "parameters": sum(w.numel() for w in net.parameters()),
    }  # fmt: skip
    return net.eval(), recipe


def lessons(images: np.ndarray, steps: int, batch: int, rng: np.random.Generator) -> Any:
    """Batches of any crop, turn and mirror image, the light a little changed."""
    count = images.shape[0] * images.shape[1]
    order = np.concatenate([rng.permutation(count) for _ in range(steps * batch // count + 1)])
    for step in range(steps):
        chosen = order[step * batch : (step + 1) * batch]
        pixels = images[chosen // PHOTOS_EACH, chosen % PHOTOS_EACH]
        left = int(rng.integers(0, WIDE - SIDE + 1))
        pixels = np.rot90(pixels[:, :, left : left + SIDE], int(rng.integers(4)), (1, 2))
        pixels = pixels[:, :: int(rng.choice([-1, 1]))]
        gain = rng.uniform(0.85, 1.15, (batch, 1, 1, 1)) * rng.normal(1, 0.03, (batch, 1, 1, 3))
        light = np.clip(pixels * gain.astype(np.float32), 0, 255)
        yield torch.from_numpy(light.astype(np.uint8)), torch.from_numpy(chosen // PHOTOS_EACH)


def by_angle(embedding: Tensor, classes: Tensor, y: Tensor) -> Tensor:
    """Softmax over cosines; the right class must win by a margin."""
    cosine = nn.functional.normalize(embedding) @ nn.functional.normalize(classes).T
    margin = 0.15 * nn.functional.one_hot(y, len(classes))
    return nn.functional.cross_entropy(18 * (cosine - margin), y)


def by_traits(read: Tensor, y: Tensor, kinds: Tensor, measures: Tensor) -> Tensor:
    """Of the snakes in the batch only: a thing has no pattern."""
    snake = y < SPECIES_TAUGHT
    read, y = read[snake], y[snake]
    pattern, head, rest = read.split([len(PATTERNS), len(HEADS), measures.shape[1]], 1)
    by_pattern = nn.functional.cross_entropy(pattern, kinds[y, 0])
    by_head = nn.functional.cross_entropy(head, kinds[y, 1])
    return by_pattern + 0.3 * by_head + 10 * nn.functional.mse_loss(rest, measures[y])


def export(net: Net, file: Path) -> None:
    """One file, opset 18, the first axis `batch`."""
    example = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(
        net, (example,), file, input_names=["image"], output_names=["embedding"],
        dynamic_shapes=({0: batch},), opset_version=18, external_data=False, dynamo=True,
    )  # fmt: skip


# What it is worth: the named species, which it has never seen, by the pipeline's own steps.


def judge(file: Path) -> dict[str, Any]:
    """A head fitted on 40 photos of each species, tried on 40 others; the ninth as a stranger."""
    session = session_of(file.read_bytes())
    learnt, tried = (embed_photos(session, first) for first in (0, 900_000))
    eight, nine = len(SPECIES) - 1, len(SPECIES)
    known, stranger = outputs(learnt[:eight], tried[:eight]), outputs(learnt[:eight], tried[eight:])
    names = np.repeat(np.arange(nine), JUDGED_EACH)
    right = known["probabilities"].argmax(1) == names[: eight * JUDGED_EACH]
    all_nine = outputs(learnt, tried)["probabilities"].argmax(1) == names
    figures = {
        "accuracy_eight": right.mean(),
        "accuracy_nine": all_nine.mean(),
        "auroc_ninth_by_energy": auroc(known["energy"], stranger["energy"]),
        "auroc_ninth_by_distance": auroc(known["distance"], stranger["distance"]),
        "known_called_unknown": known["unknown"].mean(),
        "ninth_called_unknown": stranger["unknown"].mean(),
        "cpu_ms_an_image": cpu_ms(session),
        "bytes": file.stat().st_size,
    }
    recall = right.reshape(eight, -1).mean(1)
    figures |= {f"recall {s.slug}": r for s, r in zip(SPECIES, recall, strict=False)}
    return {name: round(float(value), 4) for name, value in figures.items()}


def embed_photos(session: Any, first: int) -> np.ndarray:
    """float16 [species, JUDGED_EACH, EMBEDDING], as the pipeline stores them."""
    jobs = [(s, first + n) for s in SPECIES for n in range(JUDGED_EACH)]
    with ProcessPoolExecutor(2) as pool:
        pixels = list(pool.map(seen, jobs, chunksize=20))
    found = infer(session, "image", "embedding", np.stack(pixels)).astype(np.float16)
    return found.reshape(len(SPECIES), JUDGED_EACH, -1)


def seen(job: tuple[Species, int]) -> np.ndarray:
    return prepare(photo(*job), Preprocessing(side=SIDE, crop=1.0), Limits()).pixels


def outputs(learnt: np.ndarray, tried: np.ndarray) -> dict[str, np.ndarray]:
    """What the product's own head, fitted on `learnt`, says of `tried`."""
    labels = np.repeat([f"{n}" for n in range(len(learnt))], JUDGED_EACH)
    head = session_of(fit(learnt.reshape(-1, EMBEDDING), labels.tolist()).onnx)
    rows = tried.reshape(-1, EMBEDDING).astype(np.float32)
    names = [output.name for output in head.get_outputs()]
    return dict(zip(names, head.run(names, {"embedding": rows}), strict=True))


def auroc(known: np.ndarray, strange: np.ndarray) -> float:
    """How often a stranger scores above a known one."""
    return float((strange[:, None] > known).mean() + (strange[:, None] == known).mean() / 2)


def cpu_ms(session: Any) -> float:
    batch = np.zeros((8, SIDE, SIDE, 3), np.uint8)
    start = time.process_time()
    for _ in range(25):
        infer(session, "image", "embedding", batch)
    return (time.process_time() - start) / 200 * 1e3


def pack(out: Path, told: dict[str, Any]) -> None:
    """The package: hashed, unsigned, since it is trusted as the code beside it is."""
    lineage = {"script": "bench/train_backbone.py", **told}
    model = (out / "model.onnx").read_bytes()
    package = package_backbone("drawn", model, Options(crop=1.0), lineage)
    write_folder(out / "backbone", package)
    version, space = package.manifest.version, package.manifest.feature_space
    tables = {name: table(rows) for name, rows in told.items()}
    text = RECIPE.format(version=version, space=space, side=SIDE, embedding=EMBEDDING, **tables)
    (out / "backbone" / "RECIPE.md").write_text(text)


def table(rows: dict[str, Any]) -> str:
    return "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in rows.items())


RECIPE = """# The backbone that ships

Version `{version}`, feature space `{space}`. A small residual CNN: {side} × {side} 8-bit RGB in,
an embedding of {embedding} numbers out. `bench/train_backbone.py` taught it from scratch on images
that it drew itself; no photo and no other model went into it.

It learnt to tell invented species apart by angle, to read pattern, head, colours, period and
slenderness off them, and to tell them from shapes that are no snakes. None of the demo's named
species was among them. It knows drawn snakes; for photos, import a backbone that was taught on
photos.

| recipe | |
|---|---|
{recipe}

Tried on the named species, JPEGs of 640 × 480 through the pipeline's decoder: the product's own
head, fitted on 40 photos a species and judged on 40 others; the ninth as a stranger to a head of
eight. An AUROC of 0.5 is chance, below it the stranger is taken for a known species with more
confidence than the known ones are.

| figure | |
|---|---|
{figures}
"""


if __name__ == "__main__":
    main()
