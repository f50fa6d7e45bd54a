"""`make bench`: what the code promises to cost, measured on this machine and compared within one run."""

from __future__ import annotations

import sys

from benchmarks import start_up, webhook


def main() -> int:
    """Return the exit code: 1 when a promise does not hold."""
    broken = 0
    for title, measure in (("The webhook", webhook.measure), ("Start-up", start_up.measure)):
        print(f"\n{title}")
        for line in measure():
            broken += "DOES NOT HOLD" in line
            print(f"  {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
