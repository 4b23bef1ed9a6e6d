"""`python -m flowers_utils`: is this machine ready for the lesson? Or: name a flower in a photo."""

import argparse
import sys

ABOUT = """\
Checks in a few seconds whether the lesson can run here, on what, and for about how long.
Exit status 0 if it can, else 1.

To name the flower in a photograph instead:
  python -m flowers_utils predict photo.jpg   (predict --help for more)
"""


def main(argv: list[str]) -> int:
    """Run the command; returns its exit status, 0 if all is well."""
    if argv[:1] == ["predict"]:
        from flowers_utils.deploy.predictor import predict_command

        return predict_command(argv[1:])
    parser = argparse.ArgumentParser(
        prog="python -m flowers_utils",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(argv)
    from flowers_utils.machine.preflight import each_check, exit_status

    results = []
    for check in each_check():
        print(check.line(), flush=True)
        results.append(check)
    return exit_status(results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
