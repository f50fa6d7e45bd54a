"""`make bench`: what the code promises to cost, measured on this machine and compared within one run."""

from __future__ import annotations

import sys

from benchmarks import full_sweep, start_up, webhook


def main() -> int:
    """Return the exit code: 1 when a promise does not hold."""
    broken = 0
    measured = {"The webhook": webhook, "Start-up": start_up, "The full sweep": full_sweep}
    for title, module in measured.items():
        print(f"\n{title}")
        for line in module.measure():
            broken += "DOES NOT HOLD" in line
            print(f"  {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
