"""`python -m admin failures` and `python -m admin replay`, with the app's settings in the environment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from admin.commands import failures, replay
from shared.errors import CosellError
from shared.services import Services


def main(arguments: Sequence[str] | None = None, services: Services | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m admin", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("failures", help="list the deals that wait for a person, with the reason and the next step")
    again = commands.add_parser("replay", help="have deals looked at again")
    again.add_argument("deals", nargs="*", metavar="deal", help="pc_<referral id> or crm_<table>_<record id>")
    again.add_argument("--all", action="store_true", help="every deal that failed")
    given = parser.parse_args(arguments)
    if given.command == "replay" and bool(given.deals) == given.all:
        again.error("name deals, or say --all")
    services = services or Services()
    try:
        if given.command == "failures":
            print(*(failures(services) or ["No deal waits for a person."]), sep="\n\n")
        else:
            sent = replay(services, given.deals, every=given.all)
            print(f"{len(sent)} deals will be looked at again.", *sent, sep="\n  ")
    except (CosellError, ValueError) as wrong:
        print(wrong, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
