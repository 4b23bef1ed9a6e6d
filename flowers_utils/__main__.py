"""`python -m flowers_utils`: is this machine ready? Or: name a flower, or compare two runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flowers_utils.deploy.predictor import Predictor, default_checkpoint
from flowers_utils.errors import FlowersError
from flowers_utils.machine.preflight import can_run, each_check
from flowers_utils.progress import say
from flowers_utils.storage.results import compare_runs, load_results

ABOUT = """\
Without a command: checks in a few seconds whether the lesson can run here, on what, and for about
how long. Exit status 0 if it can, else 1.

  python -m flowers_utils predict photo.jpg            names the flower (predict --help for more)
  python -m flowers_utils compare old.json new.json    what differs between two saved runs
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status, 0 if all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m flowers_utils",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="")
    predict = commands.add_parser("predict")
    predict.add_argument("photographs", nargs="+", metavar="photo.jpg")
    predict.add_argument("--checkpoint", type=Path, default=default_checkpoint())
    predict.add_argument("--top", type=int, default=5, help="how many names (default: 5)")
    predict.add_argument("--mirrored", action="store_true", help="average with the mirror image")
    compare = commands.add_parser("compare")
    compare.add_argument("runs", nargs=2, type=Path, metavar="results.json")
    given = parser.parse_args(argv)
    try:
        if given.command == "predict":
            return name_flowers(given)
        if given.command == "compare":
            say(compare_runs(*map(load_results, given.runs)))
            return 0
        return check_machine()
    except FlowersError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def name_flowers(given: argparse.Namespace) -> int:
    """Print the names; what is no photograph is said on standard error, and the others go on."""
    predictor = Predictor(given.checkpoint, mirrored=given.mirrored)
    say(f"Model trained on {predictor.data_title}\n")
    failed = 0
    for path in given.photographs:
        try:
            names = [f"  {p.probability:6.1%}  {p.name}" for p in predictor(path, top_k=given.top)]
        except FlowersError as error:
            sys.stderr.write(f"{error}\n")
            failed = 1
        else:
            say("\n".join([path, *names]))
    return failed


def check_machine() -> int:
    """Print each check of the machine as soon as it is made."""
    checks = []
    for check in each_check():
        say(check.line())
        checks.append(check)
    return 0 if can_run(checks) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
