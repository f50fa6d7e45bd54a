"""Checks settings and field map when the app starts, and says in the log everything that is wrong with them.

It never stops the app: while an admin mends the settings, the webhook goes on storing what Partner Center sends.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.errors import SettingsError
from shared.logs import log
from shared.mapping import load_field_map
from shared.settings import CrmChoice, all_problems, load


def problems(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return every problem of the settings and of the field map, in words."""
    found = all_problems(environ)
    try:
        choice = load(CrmChoice, environ)
        load_field_map(choice.field_map, choice.only_currency)
    except SettingsError as wrong:
        found += [problem for problem in wrong.problems if problem not in found]
    return found


def report_problems(environ: Mapping[str, str] | None = None) -> None:
    for problem in problems(environ):
        log.error("settings.problem", extra={"problem": problem})
