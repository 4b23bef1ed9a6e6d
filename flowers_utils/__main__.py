"""`python -m flowers_utils`: is this machine ready? Or: name a flower, or compare two runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import transfer_learning_config as config
from flowers_utils.deploy.predictor import Predictor
from flowers_utils.errors import FlowersError
from flowers_utils.machine import check_machine
from flowers_utils.progress import say
from flowers_utils.storage.results import compare_runs, load_results


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status, 0 if all is well."""
    final = Path(config.PATHS["models"]) / f"{config.BACKBONE}_final.pth"
    about = "Without a command: can the lesson run here, on what device, and for how long?"
    parser = argparse.ArgumentParser(prog="python -m flowers_utils", description=about)
    commands = parser.add_subparsers(dest="command")
    predict = commands.add_parser("predict", help="name the flowers in photographs")
    predict.add_argument("photographs", nargs="+", metavar="photo.jpg")
    predict.add_argument("--checkpoint", type=Path, default=final)
    compare = commands.add_parser("compare", help="what differs between two runs")
    compare.add_argument("runs", nargs=2, type=Path, metavar="results.json")
    given = parser.parse_args(argv)
    try:
        if given.command == "predict":
            predictor = Predictor(given.checkpoint)
            say(f"Model trained on {predictor.data_title}\n")
            for path in given.photographs:
                lines = [f"  {each.probability:6.1%}  {each.name}" for each in predictor(path)]
                say("\n".join([path, *lines]))
        elif given.command == "compare":
            say(compare_runs(*map(load_results, given.runs)))
        else:
            say(report := check_machine())
            return int("[fail]" in report)
    except FlowersError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
