"""What admins and operators ask for, with the app's settings in the environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from admin import audit, explain, failures, first_contact, registration, sweep, sync
from shared.errors import CosellError, Permanent
from shared.problems import REASONS
from shared.services import Services, process_services

DEAL = "its key, its referral's id, or its record: opportunity:<id>"


def main(arguments: Sequence[str] | None = None, services: Services | None = None) -> int:
    """Run one command; return its exit code, 1 when it could not be done."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command == "replay" and sum(map(bool, (given.deals, given.reason, given.all))) != 1:
        parser.error("replay: name deals, or say --reason, or --all")
    if getattr(given, "app", None) and not given.key:
        parser.error("--app needs --key, a function key of the app: docs/deploy.md, step 7")
    if given.command == "registration" and given.keys and given.app:
        parser.error("--keys: the app tells no keys; run it without --app, with PARTNER_CENTER_... in the environment")
    try:
        code: int = given.run(given, services or process_services())
        sys.stdout.flush()
    except (CosellError, ValueError) as wrong:
        print(wrong, file=sys.stderr)
        if isinstance(wrong, Permanent) and wrong.next_step:
            print(f"next: {wrong.next_step}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read along has seen enough: `... | head`. https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m admin", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)

    work_list = subparsers.add_parser("failures", help="list what waits for a person, by reason, with the next step")
    work_list.add_argument("--reason", choices=REASONS, help="only this reason")
    work_list.add_argument("--json", action="store_true", help="a JSON document a line, for machines")
    work_list.set_defaults(run=failures.show)

    replay = subparsers.add_parser("replay", help="have deals looked at again, by the workers")
    replay.add_argument("deals", nargs="*", metavar="deal", help=DEAL)
    replay.add_argument("--reason", choices=REASONS, help="every deal that failed for this reason")
    replay.add_argument("--all", action="store_true", help="every deal that failed")
    replay.add_argument("--dry-run", action="store_true", help="print what would be written, and write nothing")
    replay.set_defaults(run=sync.replay)

    look = subparsers.add_parser("sync", help="look at a deal here and now, and say what came of it")
    look.add_argument("deal", help=f"{DEAL}; also of one that is not linked yet")
    look.add_argument("--dry-run", action="store_true", help="print what would be written, and write nothing")
    look.set_defaults(run=sync.sync)

    tell = subparsers.add_parser("explain", help="tell what happened to a deal, from the beginning")
    tell.add_argument("deal", help=DEAL)
    tell.add_argument("--json", action="store_true", help="the deal, then each entry, as a JSON document a line")
    tell.set_defaults(run=explain.show)

    dismiss = subparsers.add_parser("dismiss", help="take failures off the list that nothing takes off by itself")
    dismiss.add_argument("keys", nargs="+", metavar="key", help="the first line of a failure, such as event_1a2b3c")
    dismiss.set_defaults(run=failures.dismiss)

    register = subparsers.add_parser("register", help="register the webhook: anew, with a new key or address")
    register.add_argument("--webhook-url", metavar="URL", help="default: the setting WEBHOOK_URL")
    register.add_argument(
        "--events",
        metavar="NAME,NAME",
        help="default: the four referral events and test-created; what is registered stays, unless --overwrite",
    )
    register.add_argument("--overwrite", action="store_true", help="also when another receiver is registered")
    register.add_argument(
        "--test", action=argparse.BooleanOptionalAction, help="have a test event sent; default: after a change"
    )
    _add_app(register)
    register.set_defaults(run=registration.register)

    show = subparsers.add_parser("registration", help="show what is registered, and what should be")
    show.add_argument("--keys", action="store_true", help="print the registered address alone, with its key")
    _add_app(show)
    show.set_defaults(run=registration.show)

    contact = subparsers.add_parser("first-contact", help="what the live Partner Center does, as far as it was seen")
    contact.set_defaults(run=first_contact.print_report)
    audit.add_to(subparsers)
    sweep.add_to(subparsers)
    return parser


def _add_app(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--app", metavar="URL", help="let the deployed app do it: https://<app>.azurewebsites.net")
    parser.add_argument("--key", help="a function key of that app")


if __name__ == "__main__":
    sys.exit(main())
