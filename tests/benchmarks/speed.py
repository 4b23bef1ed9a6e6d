"""How much faster than the textbook loop is the lesson, on the same photographs and machine?

    python -m tests.benchmarks.speed --jpeg-size 500            # the complete comparison

Medians are shown, projected to the photographs of Flowers102 and the epochs of the config. Weights
are random, because the speed is the same.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch

import transfer_learning_config as config
from flowers_utils import models
from flowers_utils.data import FlowerData
from flowers_utils.datasets.load import load_data
from flowers_utils.device import Device, choose_device
from flowers_utils.evaluation import predict_logits
from flowers_utils.machine.speed import measure
from flowers_utils.phases import Phase
from flowers_utils.progress import clock
from flowers_utils.storage.results import markdown_table, peak_memory_bytes
from flowers_utils.training import make_optimizer, train_one_epoch, train_phase
from flowers_utils.transforms import augment_batch, training_batches
from tests.benchmarks import textbook
from tests.benchmarks.photos import HELP, files_of, write_photographs

Times = dict[str, dict[str, float]]  # side -> what -> median seconds


def textbook_side(folder: Path) -> dict[str, float]:
    """Seconds of the second epoch of each phase (the first warms up) and of a pass over test."""
    device = choose_device(fast=False).torch_device
    loaders = textbook.make_loaders(folder)
    classes = len(loaders["train"].dataset.classes)
    model = models.build_model(num_classes=classes, weights=None).to(device)
    times = {
        name: textbook.train_phase(model, loaders, name, epochs=2)[1]["seconds"]
        for name in config.PHASES
    }
    test = measure(lambda: textbook.accuracy(model, loaders["test"]), repeats=1)
    return times | {"test": test[0], "memory": peak_memory_bytes(device)}


def lesson_side(folder: Path) -> dict[str, float]:
    """The same by the lesson's functions; decoding, and what stands around the epochs, too."""
    device = choose_device()
    with tempfile.TemporaryDirectory() as made:
        config.PATHS["cache"] = made
        start = time.perf_counter()
        data = load_data(str(folder))
        times = {"decoding": time.perf_counter() - start}
        model = models.build_model(num_classes=data.num_classes, weights=None)
        for number, name in enumerate(config.PHASES, start=1):
            phase = Phase(number, **{**config.PHASES[name], "epochs": 2})
            start = time.perf_counter()
            result = train_phase(model, data, device, phase, made)
            times[f"{name} around"] = time.perf_counter() - start - result.seconds
            times[name] = result.history[1]["seconds"]
        test = measure(lambda: predict_logits(model, data.test, device), repeats=1)
        times |= step_times(model, data, device)
    return times | {"test": test[0], "memory": peak_memory_bytes(device.torch_device)}


def step_times(model: torch.nn.Module, data: FlowerData, device: Device) -> dict[str, float]:
    """The proportion of a Phase 1 step in the network, and seconds to augment a batch."""
    model, generator = device.place(model), torch.Generator().manual_seed(0)
    models.freeze_backbone(model)
    groups = models.parameter_groups(model, backbone_lr=0.0, head_lr=1e-3)
    optimizer = make_optimizer(groups, device)

    def eight_steps(ready: list | None = None) -> None:
        batches = ready or islice(training_batches(data, device, generator), 8)
        train_one_epoch(model, batches, optimizer, device)

    ready = list(islice(training_batches(data, device, generator), 8))
    in_network = measure(lambda: eight_steps(ready), repeats=1)[0]
    photos = np.array(data.train.images[: config.TRAINING_CONFIG["batch_size"]])
    photos, crop = torch.from_numpy(photos).to(device.torch_device), data.crop_size
    augmenting = measure(lambda: augment_batch(photos, generator, crop=crop), repeats=9)
    proportion = in_network / measure(eight_steps, repeats=1)[0]
    return {"in the network": proportion, "augmenting": median(augmenting)}


SIDES = {"textbook": textbook_side, "lesson": lesson_side}


def compare(folder: Path, rounds: int) -> Times:
    """Both sides in turn, each in a process of its own, so that one side cannot warm the other."""
    samples, spawn = {side: defaultdict(list) for side in SIDES}, get_context("spawn")
    for turn in range(rounds):
        for side in list(SIDES)[:: 1 if turn % 2 else -1]:
            print(f"round {turn + 1} of {rounds}: {side}", flush=True)
            with ProcessPoolExecutor(1, spawn) as pool:
                found = pool.submit(SIDES[side], folder).result()
            for what, value in found.items():
                samples[side][what].append(value)
    return {side: {k: median(v) for k, v in found.items()} for side, found in samples.items()}


def projected(times: dict[str, float], counts: dict[str, int]) -> dict[str, float]:
    """Seconds of the complete lesson on Flowers102; `counts`: photographs that were measured."""
    sizes, rows, epochs = config.DATASET["splits"], {}, 0.0
    larger = (sizes["train"] + sizes["val"]) / (counts["train"] + counts["val"])
    for name, phase in config.PHASES.items():
        rows[f"{name}: an epoch with val"] = times[name] * larger
        around = times.get(f"{name} around", 0.0)
        epochs += (phase["epochs"] * times[name] + around) * larger
    test = times["test"] * sizes["test"] / counts["test"]
    every = sum(sizes.values()) / sum(counts.values())
    decoding = times.get("decoding", 0.0) * every  # the textbook loop decodes in every epoch
    return rows | {
        "all epochs": epochs,
        "all epochs, test, cache from nothing": epochs + test + decoding,
    }


def report(times: Times, counts: dict[str, int]) -> str:
    """Seconds of both sides and their ratios; what only the lesson has below."""
    old, new = (projected(times[side], counts) for side in SIDES)
    rows = [[what, clock(s), clock(new[what]), f"{s / new[what]:.2f}"] for what, s in old.items()]
    memory = [f"{times[side]['memory'] / 1e9:.1f} GB" for side in SIDES]
    rows.append(["peak memory", *memory, ""])
    lesson = times["lesson"]
    in_network = f"{lesson['in the network']:.0%}"
    rows.append(["share of a Phase 1 step in the network", "", in_network, ""])
    rows.append(["augmenting a batch", "", f"{1000 * lesson['augmenting']:.1f} ms", ""])
    return markdown_table(["", *SIDES, "ratio"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default="practice", help=HELP)
    add("--images", type=int, default=256, help="photographs of each split; 0: all (default 256)")
    add("--jpeg-size", type=int, help="resize the photographs to this shorter side, in pixels")
    add("--rounds", type=int, default=3, help="rounds of measurement (default 3)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = files_of(args.data)
        counts = write_photographs(files, Path(folder), limit=args.images, shorter=args.jpeg_size)
        print(report(compare(Path(folder), args.rounds), counts))


if __name__ == "__main__":
    main()
