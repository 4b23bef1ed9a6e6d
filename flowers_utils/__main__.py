"""`python -m flowers_utils`: is this machine ready? Or: name a flower, or compare two runs."""

import argparse
import sys
from pathlib import Path

from flowers_utils.deploy.predictor import predict_command
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


def main(argv: list[str]) -> int:
    """Run the command; returns its exit status, 0 if all is well."""
    if argv[:1] == ["predict"]:
        return predict_command(argv[1:])
    parser = argparse.ArgumentParser(
        prog="python -m flowers_utils",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="")
    compare = commands.add_parser("compare")
    compare.add_argument("runs", nargs=2, type=Path, metavar="results.json")
    given = parser.parse_args(argv)
    try:
        if given.command == "compare":
            say(compare_runs(*map(load_results, given.runs)))
            return 0
        checks = []
        for check in each_check():
            say(check.line())
            checks.append(check)
        return 0 if can_run(checks) else 1
    except FlowersError as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
