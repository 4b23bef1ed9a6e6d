"""How much faster than the textbook loop is the lesson, on the same photographs and machine?

    python -m tests.benchmarks.speed --jpeg-size 500            # the complete comparison
    python -m tests.benchmarks.speed --images 64 --rounds 1     # a quick look

The two sides take turns, and who begins changes from round to round; medians are shown. Weights are
random, because the speed is the same. Times are projected to the 1,020 + 1,020 + 6,149 photographs
of Flowers102 and to the epochs of the config.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

import transfer_learning_config as config
from flowers_utils.progress import clock
from flowers_utils.storage.results import markdown_table
from tests.benchmarks.photos import HELP, files_of, write_photographs

SIDES = ("textbook", "lesson")
Times = dict[str, dict[str, float]]  # side -> what -> median seconds


def compare(folder: Path, rounds: int) -> Times:
    """Both sides measured in turn, each time in a fresh process (`worker.py`)."""
    samples = {side: defaultdict(list) for side in SIDES}
    for turn in range(rounds):
        for side in SIDES[:: 1 if turn % 2 else -1]:
            print(f"round {turn + 1} of {rounds}: {side}", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", "tests.benchmarks.worker", side, folder]
            for what, value in json.loads(subprocess.check_output(command)).items():
                samples[side][what].append(value)
    return {side: {k: median(v) for k, v in found.items()} for side, found in samples.items()}


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
