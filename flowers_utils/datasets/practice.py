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
from torchvision.utils import make_grid

from flowers_utils.datasets.practice_drawing import WORDS, draw_scenes
from flowers_utils.device import Device, send
from flowers_utils.errors import FlowersError
from flowers_utils.progress import Progress
from flowers_utils.storage.files import load_tensors, save_tensors
from flowers_utils.transforms import augment_batch, draw_augmentation

PRACTICE_RESIZE, PRACTICE_CROP = 72, 64  # what the network sees; 256 and 224 on photographs
PRACTICE_VERSION = 3  # raised when drawing or pretraining changes: then old files are not used
SPLIT_SIZES = {"train": 1020, "val": 1020, "test": 2040}
NUM_SPECIES, RELATIVES = 102, 6  # species, and how many of them make a genus
# As ImageNet has seen few flowers, the backbone has never seen these words of a species.
UNSEEN = {"outline": ("fringed", "square"), "pattern": ("margin", "ring")}
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
_KINDS = ("common", "alpine", "marsh", "dwarf", "silver", "wandering")
_GENERA = (
    *("belora", "camithe", "dovanel", "elphira", "fenwisk", "galumey", "hessaly", "ilvane"),
    *("jorabel", "kestrine", "lumerry", "mivolet", "norrily", "orsenna", "pelliwy", "quillane"),
    "rovanda",
)
PRACTICE_NAMES = tuple(f"{kind} {genus}" for genus in _GENERA for kind in _KINDS)


def species_table(
    count: int, *, seed: int, avoid: frozenset = frozenset(), unseen: dict | None = None
) -> list[tuple]:
    """Trait rows of `count` different species in genera of six, none of them in `avoid`.

    A row holds a position in WORDS for each trait; words in `unseen` are left out. The species of a
    genus differ from its first one in a single trait or two.
    """
    rng = np.random.default_rng(seed)
    known = [
        [i for i, word in enumerate(words) if word not in (unseen or {}).get(trait, ())]
        for trait, words in WORDS.items()
    ]
    rows: list[tuple] = []
    while len(rows) < count:
        place = len(rows) % RELATIVES
        row = [rng.choice(words) for words in known] if place == 0 else list(rows[-place])
        if place:
            for trait in rng.choice(len(known), size=rng.integers(1, 3), replace=False):
                row[trait] = rng.choice(known[trait])
        key = tuple(int(value) for value in row)
        if key not in avoid and key not in rows:
            rows.append(key)
    return rows


PRACTICE_SPECIES = tuple(species_table(NUM_SPECIES, seed=102))


def source_species(count: int) -> list[tuple]:
    """Trait rows of the pretraining species: disjoint from the 102 practice species."""
    return species_table(count, seed=2012, avoid=frozenset(PRACTICE_SPECIES), unseen=UNSEEN)


def describe_species(label: int) -> dict[str, str]:
    """The traits of a practice species in words, as `draw_species` takes them."""
    row = PRACTICE_SPECIES[label]
    return {trait: words[i] for (trait, words), i in zip(WORDS.items(), row, strict=True)}


def traits_in_words(logits: Tensor) -> list[str]:
    """What the pretrained network says to each picture: logits (N, words of all traits) in words."""
    answers = logits.split([len(words) for words in WORDS.values()], dim=1)
    return [
        ", ".join(
            f"{trait} {words[answer[row].argmax()]}"
            for (trait, words), answer in zip(WORDS.items(), answers, strict=True)
        )
        for row in range(len(logits))
    ]


def draw_species(*, count: int = 8, seed: int = 0, size: int = PRACTICE_CROP, **traits: str):
    """`count` pictures of a species of your own choice, side by side: uint8 (3, H, W).

    Name traits by their words, as in `draw_species(petals="five", outline="heart")`; WORDS lists
    them all, and a trait that is not named takes its first word. Raises FlowersError for a word
    that is not there.
    """
    for trait, word in traits.items():
        if word not in WORDS.get(trait, ()):
            known = WORDS.get(trait, tuple(WORDS))
            raise FlowersError(
                f"A flower cannot be drawn with {trait}={word!r}; "
                f"{trait if trait in WORDS else 'its traits'} can be: {', '.join(known)}."
            )
    row = [words.index(traits.get(trait, words[0])) for trait, words in WORDS.items()]
    pictures, _ = draw_scenes(torch.tensor([row] * count), size=size, seed=seed)
    return make_grid(pictures, nrow=4, pad_value=255)


def _draw(species: list[tuple], labels: np.ndarray, *, size: int, key: list[int]) -> Iterator:
    """Draw one scene a label, in batches with a seed each: pictures and masks of `draw_scenes`."""
    traits = torch.tensor(species)
    for start in range(0, len(labels), DRAWING_BATCH):
        seed = int(np.random.SeedSequence([*key, start]).generate_state(1)[0])
        part = labels[start : start + DRAWING_BATCH]
        whole = np.resize(part, DRAWING_BATCH)  # always whole, then cut: a limit changes no picture
        pictures, masks = draw_scenes(traits[torch.from_numpy(whole)], size=size, seed=seed)
        yield pictures[: len(part)].numpy(), masks[: len(part)].numpy()


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
    images = np.empty((len(labels), 3, size, size), dtype=np.uint8)
    done = 0
    for pictures, _ in _draw(
        list(PRACTICE_SPECIES), labels, size=size, key=[seed, _STREAMS[split]]
    ):
        images[done : done + len(pictures)] = pictures
        done += len(pictures)
        if progress is not None:
            progress.update(len(pictures))
    return images, labels


def flower_masks(split: str, *, size: int, seed: int = 0, limit: int | None = None) -> np.ndarray:
    """Where the flowers are in the pictures of `draw_practice_split`: bool (N, size, size)."""
    labels = practice_labels(split, limit=limit)
    scenes = _draw(list(PRACTICE_SPECIES), labels, size=size, key=[seed, _STREAMS[split]])
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
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = resnet18(num_classes=outputs)
    weight = model.conv1.weight.data
    weight += 2 * weight.mean(dim=1, keepdim=True)
    bell = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / 2)
    kernel = (bell[:, None] * bell / bell.sum() ** 2).expand(3, 1, 7, 7)
    blurred = functional.conv2d(weight, kernel, padding=3, groups=3)
    weight.copy_(blurred * weight.std() / blurred.std())
    return model


def _train_source(settings: dict, device: Device) -> tuple[dict[str, Tensor], Tensor]:
    """Learn to read the traits of source flowers.

    Returns the state dict and, for each trait, how often it was read rightly at the end.
    """
    choices = [len(words) for words in WORDS.values()]
    model = device.place(smooth_network(sum(choices), settings["seed"])).train()
    stem, rest = [model.conv1.weight], list(model.parameters())[1:]
    groups = [{"params": stem, "weight_decay": settings["stem_decay"]}, {"params": rest}]
    rate, total = settings["learning_rate"], settings["images"] // settings["batch_size"]
    optimizer = torch.optim.AdamW(
        groups, lr=rate, weight_decay=settings["weight_decay"], fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=total, pct_start=0.2
    )
    scaler, right = device.scaler(), torch.zeros(len(choices))
    title = "Pretraining the practice backbone"
    with Progress(total * settings["batch_size"], title, unit="image") as bar:
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
            if step % 16 == 0 or step == total - 1:  # reading a number waits for the device
                found = torch.stack([output.argmax(1).cpu() for output in outputs], 1)
                right += 0.3 * ((found == traits).float().mean(0) - right)
                bar.note(f"traits read rightly: {100 * float(right.mean()):.0f} %")
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    return state, right


def pretrain_backbone(
    path: str | Path,
    *,
    device: Device,
    seed: int = 0,
    images: int | None = None,
    fresh: bool = False,
) -> dict[str, Tensor]:
    """State dict of a ResNet18 that reads traits, pretrained on source flowers; kept in `path`.

    torchvision's key names, float32, on the CPU. A whole file made with the same settings is
    reused; any other, or `fresh=True`, is replaced. `images` shortens the training.
    """
    settings = dict(PRETRAINING, crop=PRACTICE_CROP, seed=seed, version=PRACTICE_VERSION)
    if images is not None:
        settings["images"] = images
    kept = None if fresh else _kept_backbone(Path(path), settings)
    if kept is not None:
        return kept
    state, right = _train_source(settings, device)
    save_tensors(path, {"settings": settings, "traits_right": right, "state_dict": state})
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
    outputs = sum(map(len, WORDS.values()))
    wanted = {k: v.shape for k, v in resnet18(num_classes=outputs).state_dict().items()}
    fits = {k: getattr(v, "shape", None) for k, v in state.items()} == wanted
    return state if fits and all(v.isfinite().all() for v in state.values()) else None
