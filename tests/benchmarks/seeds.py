"""Mean and standard deviation over runs: `python -m tests.benchmarks.seeds models/seed-*.json`."""

import sys
from pathlib import Path

from tests.benchmarks.readme import row_of, table

if __name__ == "__main__":
    print(table([row_of(Path(path)) for path in sys.argv[1:]]))
