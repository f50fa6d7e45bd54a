"""The functions of the real app. An app can be indexed once in a process, so everybody shares them."""

from __future__ import annotations

import gc
import logging
import os
from functools import cache

from local.host.functions import Function, index


@cache
def functions() -> list[Function]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # which settings are missing is of no interest here
    from function_app import app

    logging.disable(before)
    # The app's modules are no garbage: looking through them again and again takes a fifth of the time of the tests
    # that come here, which play the app by the thousand.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)

    def refuse(*_: object) -> None:
        raise AssertionError("this app has no output bindings")

    return index(app.get_functions(), os.environ, ".", refuse)
