"""Keeps the certificates Partner Center signs with, and says whether one of them made a signature.

Never trusts a certificate because a call names it: `callback` checks the address, `trust` the certificate. Imported on
the first call only: `cryptography` and `requests` take their time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import requests

from shared.settings import WebhookSettings
from webhook_receiver.callback import RejectedCallback, Verifier, verify
from webhook_receiver.download import Downloads, NotThere, try_later
from webhook_receiver.trust import Signer, Trust

log = logging.getLogger(__name__)

FRESH = timedelta(hours=24)
PAUSE = timedelta(seconds=60)  # between two downloads from one address, whatever the reason
KEEP_PREVIOUS = timedelta(days=7)  # what was signed before a rotation still arrives after it
MAX_ADDRESSES = 8  # besides the usual ones

Now = Callable[[], datetime]


def webhook_verifier(
    settings: WebhookSettings, *, session: requests.Session | None = None, now: Now | None = None
) -> Verifier:
    """Return the function that tells a genuine call from another; one per process, it keeps the certificates."""
    return partial(verify, certificates=SigningCertificates(settings, session=session, now=now), settings=settings)


@dataclass
class Address:
    """What is known about one certificate address. Its lock makes a burst of calls share one download."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    current: Signer | None = None
    previous: Signer | None = None
    fetched: datetime | None = None  # the last download that gave a signer
    tried: datetime | None = None  # the last download at all
    refusal: RejectedCallback | None = None  # what came of it, if no signer

    def signers(self, now: datetime) -> tuple[Signer, ...]:
        return tuple(signer for signer in (self.current, self.previous) if signer and now < signer.valid_until)

    def may_fetch(self, now: datetime) -> bool:
        return self.tried is None or now - self.tried >= PAUSE

    def is_stale(self, now: datetime) -> bool:
        current = self.current
        return current is None or self.fetched is None or now >= min(current.valid_until, self.fetched + FRESH)

    def take(self, signer: Signer, now: datetime) -> None:
        if self.current and self.current.key != signer.key:
            self.previous = Signer(self.current.key, min(self.current.valid_until, now + KEEP_PREVIOUS))
        self.current, self.fetched, self.refusal = signer, now, None


class SigningCertificates:
    """Answers whether a signature was made by the certificate at an address."""

    def __init__(
        self, settings: WebhookSettings, *, session: requests.Session | None = None, now: Now | None = None
    ) -> None:
        self._now = now or (lambda: datetime.now(UTC))
        self._downloads = Downloads(session, self._now)
        self._trust = Trust(settings, self._downloads.fetch, self._now)
        # Microsoft names the file after the certificate: whatever others make up, for these there is always room.
        self._usual_files = tuple(f"/cert/{name}.cer" for name in settings.certificate_names)
        self._lock = threading.Lock()
        self._addresses: dict[str, Address] = {}

    def signed(self, url: str, signatures: Sequence[bytes], body: bytes) -> bool:
        """Whether the certificate at `url`, or the one it replaced lately, made one of `signatures` over `body`."""
        address = self._address(url)
        tried = self._signers(address, url)
        if _made_by_one(tried, signatures, body):
            return True
        # Perhaps the certificate has been rotated behind its address.
        renewed = self._signers(address, url, doubted=tried)
        return renewed != tried and _made_by_one(renewed, signatures, body)

    def _address(self, url: str) -> Address:
        with self._lock:
            if url not in self._addresses:
                if not self._is_usual(url):
                    self._make_room()
                self._addresses[url] = Address()
            return self._addresses[url]

    def _is_usual(self, url: str) -> bool:
        return url.endswith(self._usual_files)

    def _make_room(self) -> None:
        """Forget an unusual address, if there are enough. One that gave nothing goes before one in use: calls that make
        addresses up can neither push a real one out nor cause more than MAX_ADDRESSES downloads per PAUSE."""
        now = self._now()
        unusual = {url: address for url, address in self._addresses.items() if not self._is_usual(url)}
        if len(unusual) < MAX_ADDRESSES:
            return
        useless = {url: address for url, address in unusual.items() if not address.signers(now)}
        tried = [url for url, address in useless.items() if address.tried and address.may_fetch(now)]
        if useless and not tried:
            raise try_later("more certificate addresses were named than are kept")
        oldest = min(unusual, key=lambda url: unusual[url].fetched or now)
        del self._addresses[tried[0] if tried else oldest]

    def _signers(self, address: Address, url: str, doubted: Sequence[Signer] = ()) -> tuple[Signer, ...]:
        """The keys that count for `url`, downloaded if need be. `doubted`: these did not fit the signature."""
        with address.lock:
            now = self._now()
            wanted = address.is_stale(now) or (doubted and address.signers(now) == doubted)
            if wanted and address.may_fetch(now):
                self._renew(address, url, now)
            signers = address.signers(now)
            if not signers:
                raise _again(address.refusal)
            return signers

    def _renew(self, address: Address, url: str, now: datetime) -> None:
        address.tried = now
        try:
            address.take(self._trust.signer(self._downloads.fetch(url), url), now)
        except NotThere as refusal:
            # For a file by its usual name the sender shall come again; any other one was made up.
            address.refusal = refusal if self._is_usual(url) else RejectedCallback(401, refusal.reason)
        except RejectedCallback as refusal:
            address.refusal = refusal
        if address.refusal:  # an error: as long as it lasts, genuine events may be turned away
            log.error("webhook.certificate_refused", extra={"url": url, "reason": address.refusal.reason})


def _again(refusal: RejectedCallback | None) -> RejectedCallback:
    """A fresh exception with the words of the one kept: the kept one would gather a traceback per call."""
    if refusal is None:
        return try_later("the certificate has expired and was fetched a moment ago")
    return RejectedCallback(refusal.status, refusal.reason, retry_after_s=refusal.retry_after_s)


def _made_by_one(signers: Sequence[Signer], signatures: Sequence[bytes], body: bytes) -> bool:
    return any(signer.made(signature, body) for signer in signers for signature in signatures)
