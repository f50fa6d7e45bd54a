"""Record ids: 15 case-sensitive characters, or 18 with a checksum that remembers the case. Holds no rows.

https://help.salesforce.com/s/articleView?id=000385203&language=en_US&type=1
"""

from __future__ import annotations

import re
from itertools import count

CHECKSUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
POD = "Dn0"


def id18(text: str) -> str | None:
    """The id in its 18 character form; None when it is no id. The case of an 18 character id is repaired."""
    if not re.fullmatch(r"[A-Za-z0-9]{15}(?:[A-Za-z0-5]{3})?", text):
        return None
    return text + _checksum(text) if len(text) == 15 else _with_case_repaired(text)


def _checksum(id15: str) -> str:
    return "".join(
        CHECKSUM[sum(1 << bit for bit, char in enumerate(id15[start : start + 5]) if "A" <= char <= "Z")]
        for start in (0, 5, 10)
    )


def _with_case_repaired(text: str) -> str | None:
    suffix, repaired = text[15:].upper(), ""
    for group, code in enumerate(suffix):
        bits = CHECKSUM.index(code)
        for bit, char in enumerate(text[group * 5 : group * 5 + 5]):
            repaired += char.upper() if bits & (1 << bit) else char.lower()
    return repaired + suffix if _checksum(repaired) == suffix else None


class Ids:
    """Gives out ids, each with the prefix of its object."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def next(self, prefix: str) -> str:
        number, digits = next(self._numbers), ""
        for _ in range(15 - len(prefix) - len(POD)):
            number, digit = divmod(number, len(DIGITS))
            digits = DIGITS[digit] + digits
        id15 = prefix + POD + digits
        return id15 + _checksum(id15)
