"""`make bench`: what the code promises to cost, measured on this machine and compared within one run."""

from __future__ import annotations

from benchmarks import start_up, webhook


def main() -> None:
    for title, measure in (("The webhook", webhook.measure), ("Start-up", start_up.measure)):
        print(f"\n{title}")
        for line in measure():
            print(f"  {line}")


if __name__ == "__main__":
    main()
