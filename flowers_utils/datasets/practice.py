"""Practice flowers: 102 invented species as PNG files, and a backbone pretrained on others only."""

import contextlib
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.transforms.v2.functional import gaussian_blur

from flowers_utils.datasets import practice_species as flowers
from flowers_utils.datasets.practice_drawing import draw_scenes
from flowers_utils.device import Device, send
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage import files
from flowers_utils.training import make_optimizer, train_one_epoch
from flowers_utils.transforms import augment_batch

PRACTICE_RESIZE, PRACTICE_CROP = 72, 64  # what the network sees; 256 and 224 on photographs
PRACTICE_VERSION = 4  # raised when drawing or pretraining changes: then old files are not used
SPLIT_SIZES = {"train": 1020, "val": 1020, "test": 2040}
# Each image is newly drawn and used once. `sizes`: pixels, and the fraction of images of that size,
# because small ones are quick, and enough for a start.
PRETRAINING = {"images": 40_960, "species": 300, "sizes": ((32, 0.5), (48, 0.25), (64, 0.25))}
# The highest learning rate of a cycle. `stem_decay`, for the first layer alone, removes random noise.
PRETRAINING |= {"batch_size": 32, "learning_rate": 0.002, "weight_decay": 0.05, "stem_decay": 3.0}
DRAWING_BATCH = 64


def practice_scenes(
    split: str, *, size: int, seed: int, limit: int | None = None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Label, picture uint8 (3, size, size) and mask bool (size, size); species take turns."""
    species, stream = torch.tensor(flowers.PRACTICE_SPECIES), 1 + list(SPLIT_SIZES).index(split)
    count = min(limit or SPLIT_SIZES[split], SPLIT_SIZES[split])
    for start in range(0, count, DRAWING_BATCH):
        batch_seed = np.random.SeedSequence([seed, stream, start]).generate_state(1)[0]
        # Always a complete batch, which is cut afterwards: a limit must not change any picture.
        labels = torch.arange(start, start + DRAWING_BATCH) % flowers.NUM_SPECIES
        scenes = draw_scenes(species[labels], size=size, seed=int(batch_seed))
        yield from islice(zip(labels.tolist(), *scenes, strict=True), count - start)


def draw_practice_folder(root: Path, *, seed: int, limit: int | None) -> Path:
    """The folder with `{train,val,test}/<species>/<number>.png`, which is drawn if need be."""
    folder = root / ("practice" if limit is None else f"practice-first-{limit}")
    facts = f"version {PRACTICE_VERSION}, seed {seed}"
    with files.one_at_a_time(folder):
        mark, there = folder / ".drawn", sum(1 for _ in folder.glob("*/*/*.png"))
        total = sum(min(limit or count, count) for count in SPLIT_SIZES.values())
        if there == total and mark.is_file() and mark.read_text(encoding="utf-8") == facts:
            return folder
        part = root / f".{folder.name}.part"  # renamed when it is complete: a stop does no harm
        shutil.rmtree(part, ignore_errors=True)
        with Progress(total, "Drawing practice flowers", unit="image") as bar:
            for split in SPLIT_SIZES:
                size = PRACTICE_RESIZE if split == "train" else PRACTICE_CROP
                scenes = practice_scenes(split, size=size, seed=seed, limit=limit)
                for number, (label, picture, _) in enumerate(scenes):
                    path = part / split / flowers.PRACTICE_NAMES[label] / f"{number:04d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
                    bar.update()
        (part / mark.name).write_text(facts, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        files.rename(part, folder)
    return folder


def source_batches(settings: dict, device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    """Newly drawn source flowers, augmented as in the lesson, and their traits (B, 7)."""
    known = {"avoid": flowers.PRACTICE_SPECIES, "unseen": flowers.UNSEEN}
    species = torch.tensor(flowers.species_table(settings["species"], seed=2012, **known))
    generator = torch.Generator().manual_seed(settings["seed"])
    for crop, fraction in settings["sizes"]:
        resize = crop * PRACTICE_RESIZE // PRACTICE_CROP
        for _ in range(int(fraction * settings["images"]) // settings["batch_size"]):
            chosen = torch.randint(len(species), (settings["batch_size"],), generator=generator)
            seed = int(torch.randint(2**31, (), generator=generator))
            pictures, _ = draw_scenes(species[chosen], size=resize, seed=seed)
            images = augment_batch(send(pictures, device.torch_device), generator, crop=crop)
            yield device.place_batch(images), send(species[chosen], device.torch_device)


def _train_source(settings: dict, device: Device) -> dict[str, Tensor]:
    """Train a ResNet18 on the traits of source flowers; returns its state dict."""
    words, traits, count = flowers.MOST_WORDS, len(flowers.WORDS), settings["images"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"])
        network = resnet18(num_classes=words * traits)
    # Noise in the first filters decays slowly in training, and pictures are smooth. So they start
    # blurred and nearly grey, at the usual scale.
    weight = network.conv1.weight.data
    weight += 2 * weight.mean(dim=1, keepdim=True)
    blurred = gaussian_blur(weight, 7, sigma=1.0)
    weight.copy_(blurred * weight.std() / blurred.std())
    first, *others = device.place(network).parameters()
    groups = [{"params": [first], "weight_decay": settings["stem_decay"]}]
    groups.append({"params": others, "weight_decay": settings["weight_decay"]})
    optimizer = make_optimizer(groups, device)
    # The learning rate goes up and down once, and changes after each step (Smith 2018).
    rate, steps = settings["learning_rate"], max(2, count // settings["batch_size"])
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.2)
    optimizer.register_step_post_hook(lambda *_: cycle.step())
    model = nn.Sequential(network, nn.Unflatten(1, (words, traits)))  # a logit for each word
    with Progress(count, "Pretraining the practice backbone", unit="image") as bar:
        train_one_epoch(model, bar.follow(source_batches(settings, device)), optimizer, device)
    return {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}


def pretrain_backbone(path: str | Path, *, device: Device, seed: int = 0) -> dict[str, Tensor]:
    """State dict (float32, CPU) of a ResNet18 that predicts traits of source flowers; kept in `path`."""
    settings = dict(PRETRAINING, crop=PRACTICE_CROP, seed=seed, version=PRACTICE_VERSION)
    with contextlib.suppress(FlowersError):  # missing or damaged: it is made again
        content = files.load_tensors(path)
        if content.get("settings") == settings:
            return content["state_dict"]
    state = _train_source(settings, device)
    files.save_tensors(path, {"settings": settings, "state_dict": state})
    return state
