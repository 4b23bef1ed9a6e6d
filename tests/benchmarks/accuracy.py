"""Does the faster loop learn as much? Both loops, the lesson's recipe, several seeds, val accuracy.

    python -m tests.benchmarks.accuracy --data ../shared/data/flowers89 --seeds 3 --epochs 5 5

Needs ImageNet's weights on the disk or a network. `--data` as DATA in the notebook. The textbook loop
decodes and augments with PIL, image by image, in float32. Prints a Markdown table.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import transfer_learning_config as config
from flowers_utils.datasets.load import load_data
from flowers_utils.device import choose_device, seed_everything
from flowers_utils.models import build_model, imagenet_weights
from flowers_utils.phases import Phase
from flowers_utils.storage.results import markdown_table
from flowers_utils.training import train_phase
from tests.benchmarks import textbook
from tests.benchmarks.photos import listed, write_photographs
from tests.benchmarks.seeds import mean_and_deviation
from tests.benchmarks.worker import without_epochs


def by_textbook(folder: Path, seed: int, epochs: list[int], size: int) -> list[float]:
    """Best accuracy on val after each phase, by the plain loop."""
    seed_everything(seed)
    device = choose_device(fast=False).torch_device
    loaders = textbook.make_loaders(folder / "photographs", resize=size * 256 // 224, crop=size)
    classes = len(loaders["train"].dataset.classes)
    model = textbook.make_network(classes, imagenet_weights("resnet18"), device)
    found = []
    for name, count in zip(config.PHASES, epochs, strict=True):
        history = textbook.train_phase(model, loaders, name, epochs=count)
        found.append(max(row["val_accuracy"] for row in history))
    return found


def by_lesson(folder: Path, seed: int, epochs: list[int], size: int) -> list[float]:
    """Best accuracy on val after each phase, by the lesson's functions."""
    config.AUGMENTATION.update(resize=size * 256 // 224, crop=size)
    config.PATHS.update(cache=str(folder / "cache"))
    device, data = choose_device(), load_data(str(folder / "photographs"))
    weights = imagenet_weights("resnet18")
    model = build_model(num_classes=data.num_classes, weights=weights, seed=seed)
    found = []
    for number, (name, count) in enumerate(zip(config.PHASES, epochs, strict=True), start=1):
        phase = Phase(number, epochs=count, seed=seed, **without_epochs(name))
        result = train_phase(model, data, device, phase, folder / f"seed{seed}")
        model = result.model
        found.append(result.best_val_accuracy)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default="auto", help="flowers102, practice or a folder (default: as it is here)")
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, nargs=2, default=[5, 5], help="of each phase (default 5 5)")
    add("--size", type=int, default=224, help="pixels that the network sees (default 224)")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(write_photographs(listed(args.data), folder / "photographs"), file=sys.stderr)
        for title, loop in (("textbook", by_textbook), ("this lesson", by_lesson)):
            found = []
            for seed in range(args.seeds):
                with contextlib.redirect_stdout(sys.stderr):  # the lesson's lines for each epoch
                    found.append(loop(folder, seed, args.epochs, args.size))
                print(f"{title}, seed {seed}: {found[-1]}", file=sys.stderr, flush=True)
            columns = zip(*found, strict=True)
            rows.append([title, *(mean_and_deviation(column) for column in columns)])
    after = (
        f"val after {name}, {n} epochs" for name, n in zip(config.PHASES, args.epochs, strict=True)
    )
    print(markdown_table([f"loop ({args.seeds} seeds)", *after], rows))


if __name__ == "__main__":
    main()
