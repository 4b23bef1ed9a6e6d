"""Practice flowers: 102 invented species drawn by a formula, and a backbone pretrained on others.

For places with no data and no network. Splits and labels are shaped like those of Flowers102, and
transfer learning on them is real: the backbone has only ever seen species outside the 102.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models import resnet18

from flowers_utils.datasets import practice_drawing as drawing
from flowers_utils.device import Device, send
from flowers_utils.errors import FlowersError
from flowers_utils.one_pixel_maps import skip_padding
from flowers_utils.progress import Progress
from flowers_utils.storage.files import load_tensors, save_tensors
from flowers_utils.training import STEPS_BETWEEN_CHECKS
from flowers_utils.transforms import augment_batch, draw_augmentation

PRACTICE_RESIZE, PRACTICE_CROP = 36, 32  # what the network sees; 256 and 224 on photographs
PRACTICE_VERSION = 2  # raised when drawing or pretraining changes: then old files are not used
PRACTICE_SHOW = 96  # for people to look at: the same seed draws the same flowers at every size
SPLIT_SIZES = {"train": 1020, "val": 1020, "test": 2040}
NUM_SPECIES, RELATIVES, DIFFERENCES = 102, 6, 2
PRETRAINING = {"images": 40_000, "species": 300, "batch_size": 64, "learning_rate": 0.002}
DRAWING_BATCH = 64
_STREAMS = {"train": 1, "val": 2, "test": 3, "source": 4}
_KINDS = ("common", "alpine", "marsh", "dwarf", "silver", "wandering")
_GENERA = (
    *("belora", "camithe", "dovanel", "elphira", "fenwisk", "galumey", "hessaly", "ilvane"),
    *("jorabel", "kestrine", "lumerry", "mivolet", "norrily", "orsenna", "pelliwy", "quillane"),
    "rovanda",
)
PRACTICE_NAMES = tuple(f"{kind} {genus}" for genus in _GENERA for kind in _KINDS)


def species_table(count: int, *, seed: int, avoid: frozenset = frozenset()) -> list[tuple]:
    """Trait rows of `count` different species in genera of six, none of them in `avoid`.

    The species of a genus differ from its first one in one or two traits.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple] = []
    first: tuple = ()
    taken = set(avoid)
    while len(rows) < count:
        row = list(rng.integers(drawing.CHOICES)) if len(rows) % RELATIVES == 0 else list(first)
        if len(rows) % RELATIVES:
            for trait in rng.choice(len(drawing.CHOICES), size=DIFFERENCES, replace=False):
                row[trait] = rng.integers(drawing.CHOICES[trait])
        key = tuple(int(value) for value in row)
        if key in taken:
            continue
        if len(rows) % RELATIVES == 0:
            first = key
        taken.add(key)
        rows.append(key)
    return rows


PRACTICE_SPECIES = tuple(species_table(NUM_SPECIES, seed=102))


def source_species(count: int) -> list[tuple]:
    """Trait rows of the pretraining species: disjoint from the 102 practice species."""
    return species_table(count, seed=2012, avoid=frozenset(PRACTICE_SPECIES))


def _draw(species: list[tuple], labels: np.ndarray, *, size: int, key: list[int], progress):
    """Draw one image a label, in batches with a seed each: uint8 (N, 3, size, size)."""
    traits = torch.tensor(species)
    images = np.empty((len(labels), 3, size, size), dtype=np.uint8)
    for start in range(0, len(labels), DRAWING_BATCH):
        seed = int(np.random.SeedSequence([*key, start]).generate_state(1)[0])
        count = min(DRAWING_BATCH, len(labels) - start)
        batch = np.resize(labels[start : start + count], DRAWING_BATCH)  # always whole, then cut
        drawn = drawing.draw_flowers(traits[torch.from_numpy(batch)], size=size, seed=seed)
        images[start : start + count] = drawn[:count].numpy()
        if progress is not None:
            progress.update(count)
    return images


def practice_labels(split: str, *, limit: int | None = None) -> np.ndarray:
    """0-based labels int64 (N,): species take turns, so that a `limit` keeps the mix."""
    if split not in SPLIT_SIZES:
        raise ValueError(f"split must be one of {', '.join(SPLIT_SIZES)}, not {split!r}")
    count = SPLIT_SIZES[split] if limit is None else min(limit, SPLIT_SIZES[split])
    return np.arange(count, dtype=np.int64) % NUM_SPECIES


def draw_practice_split(
    split: str,
    *,
    size: int,
    seed: int = 0,
    limit: int | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 3, size, size) and 0-based labels int64 (N,) of "train", "val" or "test".

    The same `seed` gives the same flowers at every size, and a `limit` the first of them.
    `progress.update` is told about each batch of drawn images.
    """
    labels = practice_labels(split, limit=limit)
    key = [seed, _STREAMS[split]]
    return _draw(list(PRACTICE_SPECIES), labels, size=size, key=key, progress=progress), labels


def draw_source_task(
    n_images: int, n_species: int, *, size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of `n_species` species outside the 102, in random order."""
    labels = np.random.default_rng([seed, 5]).integers(n_species, size=n_images)
    key = [seed, _STREAMS["source"]]
    return _draw(source_species(n_species), labels, size=size, key=key, progress=None), labels


def _train_source(settings: dict, device: Device) -> tuple[dict[str, Tensor], Tensor]:
    """Learn to read the traits of freshly drawn source flowers, none seen twice.

    They are augmented as the lesson's own will be. Returns the state dict and, for each trait, how
    often it was read rightly at the end.
    """
    steps, batch = settings["images"] // settings["batch_size"], settings["batch_size"]
    with torch.random.fork_rng():
        torch.manual_seed(settings["seed"])
        model = skip_padding(resnet18(num_classes=sum(drawing.CHOICES)))
    model = device.place(model).train()
    rate = settings["learning_rate"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.2
    )
    scaler = device.scaler()
    right = torch.zeros(len(drawing.CHOICES), device=device.torch_device)
    traits = torch.tensor(source_species(settings["species"]))
    dice = torch.Generator().manual_seed(settings["seed"])
    with Progress(steps * batch, "Pretraining the practice backbone", unit="image") as bar:
        for step in range(steps):
            images, labels = draw_source_task(
                batch,
                settings["species"],
                size=PRACTICE_RESIZE,
                seed=settings["seed"] * 1_000_003 + step,
            )
            images = send(torch.from_numpy(images), device.torch_device)
            draws = draw_augmentation(batch, dice, resize=PRACTICE_RESIZE, crop=PRACTICE_CROP)
            inputs = device.place_batch(augment_batch(images, draws, crop=PRACTICE_CROP))
            targets = send(traits[labels], device.torch_device)
            with device.autocast():
                outputs = model(inputs).float().split(drawing.CHOICES, dim=1)
            loss = sum(
                functional.cross_entropy(output, target)
                for output, target in zip(outputs, targets.unbind(1), strict=True)
            )
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            found = torch.stack([output.argmax(1) for output in outputs], 1)
            right += 0.05 * ((found == targets).float().mean(0) - right)
            bar.update(batch)
            if step % STEPS_BETWEEN_CHECKS == 0:  # reading a number waits for the device
                bar.note(f"traits read rightly: {100 * float(right.mean()):.0f} %")
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    return {k: v for k, v in state.items() if not k.startswith("fc.")}, right.cpu()


def pretrain_backbone(
    path: str | Path,
    *,
    device: Device,
    seed: int = 0,
    images: int | None = None,
    fresh: bool = False,
) -> dict[str, Tensor]:
    """State dict of a ResNet18 without its head, pretrained on source flowers; kept in `path`.

    torchvision's key names, float32, on the CPU. A whole file made with the same settings is
    reused; any other, or `fresh=True`, is replaced. `images` shortens the training.
    """
    settings = dict(PRETRAINING, size=PRACTICE_CROP, seed=seed, version=PRACTICE_VERSION)
    if images is not None:
        settings["images"] = images
    kept = None if fresh else _kept_backbone(Path(path), settings)
    if kept is not None:
        return kept
    state, right = _train_source(settings, device)
    content = {"settings": settings, "traits_right": right, "state_dict": state}
    save_tensors(path, content)
    return state


def _kept_backbone(path: Path, settings: dict) -> dict[str, Tensor] | None:
    """The state dict in `path`, or None where there is none, a damaged or a different one."""
    if not path.is_file():
        return None
    try:
        content = load_tensors(path)
    except FlowersError:  # damaged: it is made anew
        return None
    state = content.get("state_dict")
    if content.get("settings") != settings or not isinstance(state, dict):
        return None
    wanted = {k: v.shape for k, v in resnet18().state_dict().items() if not k.startswith("fc.")}
    fits = {k: getattr(v, "shape", None) for k, v in state.items()} == wanted
    return state if fits and all(v.isfinite().all() for v in state.values()) else None
