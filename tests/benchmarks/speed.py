"""How much faster than the textbook loop is the lesson, on the same photographs and machine?

    python -m tests.benchmarks.speed --jpeg-size 500            # the complete comparison
    python -m tests.benchmarks.speed --images 64 --rounds 1     # a quick look

The two sides take turns, and who begins changes from round to round; medians are shown. Weights are
random, because the speed is the same. Times are projected to the 1,020 + 1,020 + 6,149 photographs
of Flowers102 and to the epochs of the config.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import transfer_learning_config as config
from flowers_utils.progress import clock
from flowers_utils.storage.results import markdown_table
from tests.benchmarks import worker
from tests.benchmarks.photos import listed, write_photographs

SIDES = ("textbook", "lesson")
STAGES = (("phase", "phase1"), ("phase", "phase2"), ("test",))
Times = dict[str, dict[str, float]]  # side -> what -> median seconds


def compare(folder: Path, args: argparse.Namespace) -> Times:
    """Both sides measured in turn, each in a process of its own."""
    samples = {side: defaultdict(list) for side in SIDES}
    spawn = multiprocessing.get_context("spawn")
    pools = {
        side: ProcessPoolExecutor(1, spawn, worker.begin, (side, folder, args)) for side in SIDES
    }
    for turn in range(args.rounds):
        stages = [(side, stage) for stage in STAGES for side in SIDES[:: 1 if turn % 2 else -1]]
        for side, stage in [*stages, ("lesson", ("step",))]:
            print(f"round {turn + 1} of {args.rounds}: {stage[-1]}, {side}", file=sys.stderr)
            for what, value in pools[side].submit(worker.measured, *stage).result().items():
                samples[side][what].append(value)
    for pool in pools.values():
        pool.shutdown()
    return {
        side: {what: statistics.median(values) for what, values in found.items()}
        for side, found in samples.items()
    }


def projected(times: dict[str, float], counts: dict[str, int]) -> dict[str, float]:
    """Seconds of the complete lesson on Flowers102; `counts`: photographs that were measured."""
    sizes, epochs = config.DATASET["splits"], 0.0
    larger = (sizes["train"] + sizes["val"]) / (counts["train"] + counts["val"])
    rows = {}
    for name, phase in config.PHASES.items():
        rows[f"{name}: an epoch with val"] = times[name] * larger
        around = times.get(f"{name} around", 0.0)
        epochs += (phase["epochs"] * times[name] + around) * larger
    rows["all epochs"] = epochs
    rows["test"] = times["test"] * sizes["test"] / counts["test"]
    every = sum(sizes.values()) / sum(counts.values())
    decoding = times.get("decoding", 0.0) * every  # the textbook loop decodes in every epoch
    rows["all epochs, test, cache from nothing"] = epochs + rows["test"] + decoding
    return rows


def report(times: Times, counts: dict[str, int]) -> str:
    """Seconds of both sides and their ratios; what only the lesson has below."""
    old, new = (projected(times[side], counts) for side in SIDES)
    rows = [
        [what, clock(s), clock(new[what]), f"{s / new[what]:.2f} times"] for what, s in old.items()
    ]
    memory = [f"{times[side]['memory'] / 1e9:.1f} GB" for side in SIDES]
    table = markdown_table(["", *SIDES, "ratio"], [*rows, ["peak memory", *memory, ""]])
    lesson, batch = times["lesson"], config.TRAINING_CONFIG["batch_size"]
    return (
        f"{table}\n\nLesson: {lesson['in the network']:.0%} of a Phase 1 step is in the network; "
        f"augmenting {batch} photographs takes {1000 * lesson['augmenting']:.1f} ms."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default="auto", help="flowers102, practice or a folder (default: as it is here)")
    add("--images", type=int, default=256, help="photographs of each split; 0: all (default 256)")
    add("--jpeg-size", type=int, help="resize the photographs to this shorter side, in pixels")
    add("--rounds", type=int, default=3, help="rounds of measurement (default 3)")
    add("--device", choices=("cuda", "mps", "cpu"), help="where to compute (default: the best)")
    add("--float32", action="store_true", help="the lesson in float32, too")
    add("--size", type=int, default=224, help="pixels that the network sees (default 224)")
    add("--workers", type=int, default=0, help="of the textbook's DataLoader (default 0)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shown = write_photographs(
            listed(args.data), folder / "photographs", limit=args.images, shorter=args.jpeg_size
        )
        splits = (folder / "photographs").iterdir()
        counts = {split.name: len(list(split.rglob("*.jpg"))) for split in splits}
        print(f"{shown}\n\n{report(compare(folder, args), counts)}")


if __name__ == "__main__":
    main()
