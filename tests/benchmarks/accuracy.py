"""Does the faster loop learn as much? Both loops, the lesson's recipe, several seeds, val accuracy.

    python -m tests.benchmarks.accuracy --data ../shared/data/flowers89 --seeds 3 --epochs 5 5

Needs ImageNet's weights on the disk or a network. Prints a Markdown table.
"""

import argparse
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
from tests.benchmarks.photos import HELP, files_of, write_photographs
from tests.benchmarks.readme import mean_and_deviation


def by_textbook(folder: Path, seed: int, epochs: dict[str, int]) -> list[float]:
    """Best accuracy on val after each phase, by the plain loop."""
    loaders = textbook.make_loaders(folder)
    classes, weights = len(loaders["train"].dataset.classes), imagenet_weights("resnet18")
    model = build_model(num_classes=classes, weights=weights, seed=seed)
    model = model.to(choose_device(fast=False).torch_device)
    seed_everything(seed)
    phases = [textbook.train_phase(model, loaders, name, epochs=n) for name, n in epochs.items()]
    return [max(row["val_accuracy"] for row in history) for history in phases]


def by_lesson(folder: Path, seed: int, epochs: dict[str, int]) -> list[float]:
    """Best accuracy on val after each phase, by the lesson's functions."""
    device, data, found = choose_device(), load_data(str(folder)), []
    weights = imagenet_weights("resnet18")
    model = build_model(num_classes=data.num_classes, weights=weights, seed=seed)
    for number, (name, count) in enumerate(epochs.items(), start=1):
        phase = Phase(number, seed=seed, **{**config.PHASES[name], "epochs": count})
        result = train_phase(model, data, device, phase, folder.parent / f"seed{seed}")
        model = result.model
        found.append(result.best_val_accuracy)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="practice", help=HELP)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, nargs=2, default=[5, 5], help="of each phase")
    args = parser.parse_args()
    epochs, rows = dict(zip(config.PHASES, args.epochs, strict=True)), []
    with tempfile.TemporaryDirectory() as made:
        photographs = Path(made) / "photographs"
        write_photographs(files_of(args.data), photographs)
        config.PATHS["cache"] = made
        for title, loop in (("textbook", by_textbook), ("this lesson", by_lesson)):
            found = [loop(photographs, seed, epochs) for seed in range(args.seeds)]
            columns = zip(*found, strict=True)
            rows.append([title, *(mean_and_deviation(column) for column in columns)])
    after = (f"val after {name}, {count} epochs" for name, count in epochs.items())
    print(markdown_table([f"loop ({args.seeds} seeds)", *after], rows))


if __name__ == "__main__":
    main()
