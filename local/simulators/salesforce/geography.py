"""The countries and states an org with state and country picklists knows: a few, with their codes. Holds no rows."""

from __future__ import annotations

COUNTRIES = {
    "US": "United States", "CA": "Canada", "GB": "United Kingdom", "DE": "Germany", "FR": "France",
    "NL": "Netherlands", "JP": "Japan", "AU": "Australia", "IN": "India", "CN": "China",
}  # fmt: skip
STATES = {
    "US": {"CA": "California", "NY": "New York", "OR": "Oregon", "TX": "Texas", "WA": "Washington"},
    "CA": {"BC": "British Columbia", "ON": "Ontario", "QC": "Quebec"},
    "AU": {"NSW": "New South Wales", "VIC": "Victoria"},
}


def code_of(names: dict[str, str], text: str) -> str | None:
    """The code whose name, or which itself, is that text in any case."""
    for code, name in names.items():
        if text.lower() in (code.lower(), name.lower()):
            return code
    return None
