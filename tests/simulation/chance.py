"""Makes all that is drawn at random - ids, tokens, jitter - follow from a seed, so that a story can be told again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from unittest.mock import patch

T = TypeVar("T")


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """uuid4 and `secrets` ask the operating system; here they ask a generator that begins at `seed`."""
    source, before = random.Random(seed), random.getstate()
    random.seed(seed)
    try:
        with patch("os.urandom", source.randbytes), patch("random._urandom", source.randbytes):
            yield
    finally:
        random.setstate(before)


class Pick:
    """The choices of one step, all out of one number: the same number makes the same choices, 0 the first of each."""

    def __init__(self, number: int) -> None:
        self._left = number

    def of(self, options: Sequence[T]) -> T:
        self._left, place = divmod(self._left, len(options))
        return options[place]
