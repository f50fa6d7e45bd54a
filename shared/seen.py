"""Remembers which of any number of keys were seen, in constant memory: a Bloom filter. Performs no I/O.

It may take a key for seen that was not (once in 200 of 40,000 keys, in 12 of 100,000), never the other way round.
With another salt it errs about other keys, so that what one night misses the next one finds.

https://en.wikipedia.org/wiki/Bloom_filter
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator

BYTES = 1 << 16
"""As text two of them fit into one row of Table Storage, which ends at 1 MiB."""
PLACES = 4


class Seen:
    def __init__(self, salt: str, text: str = "") -> None:
        """`text` is what `text()` returned; "" for one that has seen nothing."""
        self._salt = salt.encode()
        self._bits = bytearray(zlib.decompress(base64.b64decode(text)) if text else BYTES)

    def add(self, key: str) -> None:
        for byte, bit in self._places(key):
            self._bits[byte] |= bit

    def __contains__(self, key: str) -> bool:
        return all(self._bits[byte] & bit for byte, bit in self._places(key))

    def text(self) -> str:
        """Short as long as little was seen."""
        return base64.b64encode(zlib.compress(self._bits)).decode()

    def _places(self, key: str) -> Iterator[tuple[int, int]]:
        digest = hashlib.blake2b(key.encode(), key=self._salt, digest_size=4 * PLACES).digest()
        for start in range(0, len(digest), 4):
            place = int.from_bytes(digest[start : start + 4], "big") % (8 * BYTES)
            yield place >> 3, 1 << (place & 7)
