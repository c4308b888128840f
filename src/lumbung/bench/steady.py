"""A steady load in a process of its own, so that it does not delay who times something else meanwhile.

`python -m lumbung.bench.steady --url URL --requests FILE --per-second 1000 --connections 128` sends until it is ended.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lumbung.bench import child
from lumbung.bench.generator import Generator
from lumbung.bench.wrk import SEPARATOR

FOREVER_SECONDS = 3600.0


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--url", required=True)
    made.add_argument("--requests", type=Path, required=True)
    made.add_argument("--per-second", type=float, required=True)
    made.add_argument("--connections", type=int, required=True)
    asked = made.parse_args()
    requests = asked.requests.read_bytes().split(SEPARATOR)[:-1]
    child.run(Generator(asked.url, requests).steadily(asked.per_second, FOREVER_SECONDS, asked.connections))


if __name__ == "__main__":
    main()
