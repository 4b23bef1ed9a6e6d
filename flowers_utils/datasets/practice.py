"""Practice flowers: 102 invented species drawn by a formula, and a backbone pretrained on others.

For places with no data and no network. Splits and labels are shaped like those of Flowers102, and
transfer learning on them is real: the backbone has only ever seen species outside the 102.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from flowers_utils.datasets.practice_drawing import draw_scenes
from flowers_utils.datasets.practice_species import (
    NUM_SPECIES,
    PRACTICE_SPECIES,
    WORDS,
    source_species,
)
from flowers_utils.datasets.practice_species import PRACTICE_NAMES as PRACTICE_NAMES
from flowers_utils.device import Device, send
from flowers_utils.errors import FlowersError
from flowers_utils.models import make_optimizer
from flowers_utils.progress import Progress
from flowers_utils.storage.files import load_tensors, save_tensors
from flowers_utils.transforms import augment_batch, draw_augmentation

PRACTICE_RESIZE, PRACTICE_CROP = 72, 64  # what the network sees; 256 and 224 on photographs
PRACTICE_VERSION = 3  # raised when drawing or pretraining changes: then old files are not used
SPLIT_SIZES = {"train": 1020, "val": 1020, "test": 2040}
PRETRAINING = {
    "images": 40_000,  # each drawn anew, none seen twice
    "sizes": ((32, 0.5), (48, 0.25), (64, 0.25)),  # start small, end large: pixels, share of images
    "species": 300,
    "batch_size": 32,
    "learning_rate": 0.002,  # the highest of a cycle that ends at zero
    "weight_decay": 0.05,
    "stem_decay": 3.0,  # of the first layer alone: it wears off what was random in the filters
}
DRAWING_BATCH = 64
_STREAMS = {"train": 1, "val": 2, "test": 3, "source": 4}


def _scenes(labels: np.ndarray, *, size: int, key: list[int]) -> Iterator[tuple]:
    """Pictures and masks of `draw_scenes`, one a label, in batches with a seed each."""
    species = torch.tensor(PRACTICE_SPECIES)
    for start in range(0, len(labels), DRAWING_BATCH):
        seed = int(np.random.SeedSequence([*key, start]).generate_state(1)[0])
        part = labels[start : start + DRAWING_BATCH]
        whole = np.resize(part, DRAWING_BATCH)  # always whole, then cut: a limit changes no picture
        pictures, masks = draw_scenes(species[torch.from_numpy(whole)], size=size, seed=seed)
        yield pictures[: len(part)].numpy(), masks[: len(part)].numpy()


def practice_labels(split: str, *, limit: int | None = None) -> np.ndarray:
    """0-based labels int64 (N,): species take turns, so that a `limit` keeps the mix."""
    if split not in SPLIT_SIZES:
        raise ValueError(f"split must be one of {', '.join(SPLIT_SIZES)}, not {split!r}")
    count = SPLIT_SIZES[split] if limit is None else min(limit, SPLIT_SIZES[split])
    return np.arange(count, dtype=np.int64) % NUM_SPECIES


def draw_practice_split(
    split: str, bar: Progress, *, size: int, seed: int = 0, limit: int | None = None
) -> Iterator[np.ndarray]:
    """The pictures of "train", "val" or "test", in blocks uint8 (B, 3, size, size); moves the bar.

    The same `seed` gives the same flowers at every size, and a `limit` the first of them.
    """
    labels = practice_labels(split, limit=limit)
    for drawn, _ in _scenes(labels, size=size, key=[seed, _STREAMS[split]]):
        yield drawn
        bar.update(len(drawn))


def flower_masks(split: str, *, size: int, seed: int = 0, limit: int | None = None) -> np.ndarray:
    """Where the flowers are in the pictures of `draw_practice_split`: bool (N, size, size)."""
    labels = practice_labels(split, limit=limit)
    scenes = _scenes(labels, size=size, key=[seed, _STREAMS[split]])
    return np.concatenate([masks for _, masks in scenes])


def source_batches(settings: dict) -> Iterator[tuple[Tensor, Tensor]]:
    """Freshly drawn source flowers: augmented, normalised pictures, and their traits (B, 7).

    They are augmented as the lesson's own will be. Small pictures first: they cost little and show
    enough to begin with.
    """
    species = torch.tensor(source_species(settings["species"]))
    dice = torch.Generator().manual_seed(settings["seed"])
    steps = settings["images"] // settings["batch_size"]
    ends = np.cumsum([share for _, share in settings["sizes"]]) * steps
    for step in range(steps):
        crop = settings["sizes"][min(int((ends <= step).sum()), len(ends) - 1)][0]
        resize = crop * PRACTICE_RESIZE // PRACTICE_CROP
        traits = species[torch.randint(len(species), (settings["batch_size"],), generator=dice)]
        seed = int(torch.randint(2**31, (), generator=dice))
        pictures, _ = draw_scenes(traits, size=resize, seed=seed)
        draws = draw_augmentation(len(traits), dice, resize=resize, crop=crop)
        yield augment_batch(pictures, draws, crop=crop), traits


def smooth_network(outputs: int, seed: int) -> nn.Module:
    """A new ResNet18 whose first filters are smooth and rather grey, at the usual strength.

    What chance puts into a filter stays there for long, and pictures are smooth: so the noise is
    blurred, and most of it is common to red, green and blue.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = resnet18(num_classes=outputs)
    weight = model.conv1.weight.data
    weight += 2 * weight.mean(dim=1, keepdim=True)
    bell = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / 2)
    kernel = (bell[:, None] * bell / bell.sum() ** 2).expand(3, 1, 7, 7)
    blurred = functional.conv2d(weight, kernel, padding=3, groups=3)
    weight.copy_(blurred * weight.std() / blurred.std())
    return model


def _train_source(settings: dict, device: Device) -> dict[str, Tensor]:
    """Learn to read the traits of source flowers; returns the state dict.

    AdamW with its own decay for the first layer, and one cycle of the rate (Smith 2018).
    """
    choices = [len(words) for words in WORDS.values()]
    model = device.place(smooth_network(sum(choices), settings["seed"])).train()
    total = settings["images"] // settings["batch_size"]
    stem, *rest = model.parameters()
    groups = [{"params": [stem], "weight_decay": settings["stem_decay"]}, {"params": rest}]
    optimizer = make_optimizer(groups, device, weight_decay=settings["weight_decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["learning_rate"], total_steps=max(total, 2), pct_start=0.2
    )
    scaler, right = device.scaler(), torch.zeros(len(choices))
    with Progress(
        total * settings["batch_size"], "Pretraining the practice backbone", unit="image"
    ) as bar:
        for step, (images, traits) in enumerate(source_batches(settings)):
            targets = send(traits, device.torch_device).unbind(1)
            with device.autocast():
                outputs = model(device.place_batch(images)).float().split(choices, dim=1)
            loss = sum(map(functional.cross_entropy, outputs, targets))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            bar.update(len(images))
            if step % 16 == 0:  # not more often: reading a number waits for a GPU
                found = torch.stack([output.argmax(1).cpu() for output in outputs], 1)
                right = torch.lerp(
                    right, (found == traits).float().mean(0), max(0.1, 1 / (step + 1))
                )
                bar.note(f"traits read rightly: {100 * float(right.mean()):.0f} %")
    return {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}


def pretrain_backbone(path: str | Path, *, device: Device, seed: int = 0) -> dict[str, Tensor]:
    """State dict of a ResNet18 that reads traits, pretrained on source flowers; kept in `path`.

    torchvision's key names, float32, on the CPU. A whole file made with the same settings is
    reused; any other is replaced.
    """
    settings = dict(PRETRAINING, crop=PRACTICE_CROP, seed=seed, version=PRACTICE_VERSION)
    kept = _kept_backbone(Path(path), settings)
    if kept is not None:
        return kept
    state = _train_source(settings, device)
    save_tensors(path, {"settings": settings, "state_dict": state})
    return state


def _kept_backbone(path: Path, settings: dict) -> dict[str, Tensor] | None:
    """The state dict in `path`, or None where there is none, a damaged or a different one."""
    if not path.is_file():
        return None
    try:
        content = load_tensors(path)
    except FlowersError:  # damaged: it is made anew
        return None
    return content["state_dict"] if content.get("settings") == settings else None
