"""Which certificates count, what fetching them may cost, and how long they are kept."""

from __future__ import annotations

import threading
import warnings
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import certifi
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store

from shared.errors import SettingsError
from shared.settings import WebhookSettings, load
from tests.signing import (
    AUTHORITY_NAME,
    BODY,
    CERTIFICATE_URL,
    HOST,
    MICROSOFT,
    NAME,
    NOW,
    CertificateHost,
    Issued,
    Served,
    TestClock,
    authority,
    genuine,
    issue,
    leaf,
    name,
    root,
    rsa_key,
)
from webhook_receiver.callback import RejectedCallback
from webhook_receiver.certificates import SigningCertificates
from webhook_receiver.download import direct_session
from webhook_receiver.trust import MAX_CHAIN, _ca_policy, is_root, trusted_certificates

SIGNATURE = genuine().sign(BODY)
FORGED = genuine().sign(b"another body")


def settings(tmp_path: Path, trusted: bytes = b"", **more: str) -> WebhookSettings:
    file = tmp_path / "trusted.pem"
    file.write_bytes(trusted or root().pem + authority().pem)
    return load(WebhookSettings, {"WEBHOOK_TRUSTED_ROOTS_FILE": str(file), **more})


class Checked:
    """SigningCertificates over a host that serves what the test says."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.clock = TestClock()
        self.host = CertificateHost()
        self.certificates = SigningCertificates(
            settings(tmp_path, **options), session=self.host.session(), now=self.clock
        )

    def serve(self, body: bytes, **more: Any) -> None:
        self.host.served[CERTIFICATE_URL] = Served(body, **more)

    def signed(self, signature: bytes = SIGNATURE, url: str = CERTIFICATE_URL) -> bool:
        return self.certificates.signed(url, [signature], BODY)

    def refusal(self, url: str = CERTIFICATE_URL, signature: bytes = SIGNATURE) -> RejectedCallback:
        with pytest.raises(RejectedCallback) as caught:
            self.signed(signature, url)
        return caught.value


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    return Checked(tmp_path)


# Which certificates count


def test_a_genuine_signature_is_recognized(checked: Checked) -> None:
    assert checked.signed()


def test_a_signature_over_other_bytes_is_not(checked: Checked) -> None:
    assert not checked.signed(FORGED)


def test_one_good_signature_among_several_is_enough(checked: Checked) -> None:
    assert checked.certificates.signed(CERTIFICATE_URL, [FORGED, SIGNATURE], BODY)


def test_a_signature_of_another_length_is_not_recognized(checked: Checked) -> None:
    assert not checked.signed(b"\x00" * 512)


ACCEPTED = {
    "in DER": lambda: genuine().der,
    "in PEM after other text": lambda: b"Bag Attributes\n" + genuine().pem,
    "with its issuer in the same file": lambda: genuine().pem + authority().pem,
    "for servers only": lambda: leaf(purposes=[ExtendedKeyUsageOID.SERVER_AUTH]).pem,
    "for clients only": lambda: leaf(purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]).pem,
    "without purposes": lambda: leaf(purposes=None).pem,
    "without alternative names": lambda: leaf(san=None).pem,
    "without key usage": lambda: leaf(digital_signature=None).pem,
    "without basic constraints": lambda: leaf(ca=None).pem,
    "by the former name": lambda: leaf(subject=name("pcnotifications.microsoft.com"), san=None, key=genuine().key).pem,
    "by its alternative name alone": lambda: leaf(subject=name("something else"), key=genuine().key).pem,
    "by its name in capitals": lambda: leaf(subject=name(NAME.upper()), san=None, key=genuine().key).pem,
}


@pytest.mark.parametrize("how", ACCEPTED)
def test_a_certificate_is_accepted(checked: Checked, how: str) -> None:
    checked.serve(ACCEPTED[how]())

    assert checked.signed()


def contoso() -> Issued:
    return issue(name("Contoso CA", "Contoso Ltd"), root(), ca=True, path_length=0, purposes=None)


def another_root() -> Issued:
    return issue(name("Another Root", "Another"), ca=True, purposes=None)


def authority_without_ca_flag() -> Issued:
    return issue(AUTHORITY_NAME, root(), ca=False, san=None, purposes=None)


def ec_leaf() -> Issued:
    return leaf(key=ec.generate_private_key(ec.SECP256R1()))


def deep_leaf() -> bytes:
    """One authority more than the path length of the issuing authority allows."""
    below = issue(name("Below"), authority(), ca=True, path_length=0, purposes=None)
    return leaf(issuer=below).pem + below.pem


REFUSED = {
    "expired": (lambda: leaf(days=(-90, -1)).pem, "chain"),
    "not yet valid": (lambda: leaf(days=(1, 90)).pem, "chain"),
    "issued by another organization": (lambda: leaf(issuer=contoso()).pem + contoso().pem, "issuer"),
    "issued by a look-alike name": (
        lambda: (
            leaf(
                issuer=issue(
                    name("CA, O=Microsoft Corporation", "Contoso"), root(), ca=True, path_length=0, purposes=None
                )
            ).pem
        ),
        "issuer",
    ),
    "self-signed with the right names": (lambda: issue(name(NAME)).pem, "issuer"),
    "from another root": (
        lambda: leaf(issuer=issue(AUTHORITY_NAME, another_root(), ca=True, key=rsa_key("fake"), purposes=None)).pem,
        "issuer",
    ),
    "of another organization": (lambda: leaf(subject=name(NAME, "Contoso Ltd")).pem, "subject"),
    "of no organization": (lambda: leaf(subject=name(NAME, None)).pem, "subject"),
    "of an organization whose name only begins so": (lambda: leaf(subject=name(NAME, MICROSOFT + "s")).pem, "subject"),
    "for another name": (lambda: leaf(subject=name("www.microsoft.com"), san=["www.microsoft.com"]).pem, "carries"),
    "for a name that only ends so": (lambda: leaf(subject=name("evil." + NAME), san=["evil." + NAME]).pem, "carries"),
    "with a short key": (lambda: leaf(key=rsa_key("short", 1024)).pem, "RSA"),
    "with a key that is not RSA": (lambda: ec_leaf().pem, "RSA"),
    "for code signing": (lambda: leaf(purposes=[ExtendedKeyUsageOID.CODE_SIGNING]).pem, "extended key usage"),
    "not for signing": (lambda: leaf(digital_signature=False).pem, "key usage"),
    "an authority itself": (lambda: leaf(ca=True, san=None).pem, "authority"),
    "issued by what is no authority": (
        lambda: leaf(issuer=authority_without_ca_flag()).pem + authority_without_ca_flag().pem,
        "chain",
    ),
    "below too many authorities": (deep_leaf, "chain"),
    "with an unknown critical extension": (lambda: leaf(unknown_critical=True).pem, "chain"),
    "no certificate": (lambda: b"<html>Not here</html>", "PEM or DER"),
    "nothing": (lambda: b"", "PEM or DER"),
    "a broken PEM": (lambda: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "PEM or DER"),
    "cut short": (lambda: genuine().der[:-9], "PEM or DER"),
    "too large": (lambda: genuine().pem + b"\n" * 70_000, "more than"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_certificate_is_refused(tmp_path: Path, how: str) -> None:
    # Only the root is configured where the case brings its own authority along.
    checked = Checked(tmp_path, trusted=root().pem if "no authority" in how else b"")
    body, reason = REFUSED[how]
    checked.serve(body())

    refusal = checked.refusal()

    assert (refusal.status, refusal.retry_after_s) == (401, None)
    assert reason in refusal.reason


def test_an_authority_fit_for_servers_only_is_accepted(tmp_path: Path) -> None:
    # Public authorities are losing clientAuth, which the library's own defaults ask of a client's chain.
    servers_only = issue(
        AUTHORITY_NAME, root(), ca=True, path_length=0, purposes=[ExtendedKeyUsageOID.SERVER_AUTH], days=(-10, 900)
    )
    checked = Checked(tmp_path, trusted=root().pem + servers_only.pem)

    assert checked.signed()


def test_an_authority_fit_for_neither_is_refused(tmp_path: Path) -> None:
    code_signing = issue(
        AUTHORITY_NAME, root(), ca=True, path_length=0, purposes=[ExtendedKeyUsageOID.CODE_SIGNING], days=(-10, 900)
    )
    checked = Checked(tmp_path, trusted=root().pem + code_signing.pem)

    assert checked.refusal().status == 401


def test_a_trusted_intermediate_is_no_trust_anchor(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no self-signed root"):
        Checked(tmp_path, trusted=authority().pem)


def test_an_unreadable_file_of_roots_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_TRUSTED_ROOTS_FILE"):
        Checked(tmp_path, trusted=b"not PEM")


def test_other_names_can_be_configured(tmp_path: Path) -> None:
    checked = Checked(tmp_path, WEBHOOK_CERTIFICATE_NAMES="notifications.example.com")

    assert "notifications.example.com" in checked.refusal().reason


# What is bundled

BUNDLED = trusted_certificates(None)
ROOTS = [certificate for certificate in BUNDLED if is_root(certificate)]
INTERMEDIATES = [certificate for certificate in BUNDLED if not is_root(certificate)]
ALL_WERE_ISSUED = max(certificate.not_valid_before_utc for certificate in BUNDLED) + timedelta(days=1)


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_the_bundled_roots_are_the_ones_in_certifi() -> None:
    with warnings.catch_warnings(action="ignore"):
        known = set(x509.load_pem_x509_certificates(Path(certifi.where()).read_bytes()))

    assert len(ROOTS) == 6
    assert set(ROOTS) <= known


@pytest.mark.parametrize("intermediate", INTERMEDIATES, ids=common_name)
def test_a_bundled_intermediate_is_an_authority_and_chains_to_a_bundled_root(intermediate: x509.Certificate) -> None:
    # The receiver's own rules, but for the end of the chain: there it wants a signing certificate, here an authority.
    verifier = (
        PolicyBuilder()
        .store(Store(ROOTS))
        .time(ALL_WERE_ISSUED)
        .max_chain_depth(MAX_CHAIN)
        .extension_policies(ca_policy=_ca_policy(), ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )

    chain = verifier.verify(intermediate, INTERMEDIATES).chain

    assert chain[-1] in ROOTS
    assert intermediate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert intermediate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_the_issuers_of_microsofts_own_certificates_are_bundled() -> None:
    names = [common_name(certificate) for certificate in INTERMEDIATES]

    assert len(set(names)) == len(names)
    assert set(names) == {
        "Microsoft TLS RSA Root G2",
        *(f"Microsoft TLS G2 RSA CA OCSP {number:02}" for number in range(2, 17, 2)),
        *(f"Microsoft Azure RSA TLS Issuing CA {number:02}" for number in (3, 4, 7, 8)),
    }


def test_no_bundled_certificate_has_expired() -> None:
    """The one test here that looks at today's date. It fails when it is time to act, not because something broke."""
    today = datetime.now(UTC)

    expired = [common_name(each) for each in BUNDLED if each.not_valid_after_utc <= today]

    assert not expired, "run `python -m webhook_receiver.refresh`; webhook_receiver/roots/README.md says more"


# Fetching


def test_a_download_is_bounded_in_time_and_follows_no_redirect(checked: Checked) -> None:
    elsewhere = "https://elsewhere.example.com/cert.cer"
    checked.host.served[elsewhere] = Served(genuine().pem)
    checked.serve(b"", status=302, headers={"Location": elsewhere})

    refusal = checked.refusal()

    assert refusal.status == 401
    assert checked.host.asked == [CERTIFICATE_URL]
    assert checked.host.timeouts == [(2, 3)]


@pytest.mark.parametrize(
    "served",
    [
        Served(failure=requests.ConnectionError("reset")),
        Served(failure=requests.ReadTimeout("slow")),
        Served(b"busy", 503),
        Served(b"missing", 404),
    ],
    ids=["reset", "slow", "busy", "missing"],
)
def test_a_failed_download_with_nothing_kept_asks_the_sender_to_come_again(checked: Checked, served: Served) -> None:
    checked.host.served[CERTIFICATE_URL] = served

    refusal = checked.refusal()

    assert (refusal.status, refusal.retry_after_s) == (503, 60)


def test_a_download_that_drips_is_given_up(checked: Checked) -> None:
    checked.serve(genuine().pem, before=lambda: checked.clock.advance(seconds=6))

    refusal = checked.refusal()

    assert refusal.status == 503
    assert "longer than 5 s" in refusal.reason


def test_the_environment_gives_the_ca_bundle_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/somewhere/ca.pem")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com")

    session = direct_session()

    assert session.verify == "/somewhere/ca.pem"
    assert session.trust_env is False


# The issuer's certificate, when the file has the leaf only

ISSUER_URL = "http://www.microsoft.com/pkiops/certs/Test%20TLS%20Issuing%20CA%2001.crt"


def test_a_missing_issuer_is_fetched_once_from_where_the_certificate_says(tmp_path: Path) -> None:
    checked = Checked(tmp_path, trusted=root().pem)
    checked.host.served |= {
        CERTIFICATE_URL: Served(leaf(issuer_url=ISSUER_URL).pem),
        ISSUER_URL: Served(authority().der),
    }

    assert checked.signed()
    checked.clock.advance(minutes=2)
    assert not checked.signed(FORGED)  # which fetches the leaf again

    assert checked.host.asked == [CERTIFICATE_URL, ISSUER_URL, CERTIFICATE_URL]


def test_a_kept_issuer_that_does_not_fit_any_more_is_fetched_anew(tmp_path: Path) -> None:
    checked = Checked(tmp_path, trusted=root().pem)
    renewed = issue(AUTHORITY_NAME, root(), ca=True, path_length=0, key=rsa_key("renewed authority"), purposes=None)
    checked.host.served |= {
        CERTIFICATE_URL: Served(leaf(issuer_url=ISSUER_URL).pem),
        ISSUER_URL: Served(authority().der),
    }
    assert checked.signed()
    rotated = leaf(issuer=renewed, issuer_url=ISSUER_URL, key=rsa_key("rotated"))
    checked.host.served |= {CERTIFICATE_URL: Served(rotated.pem), ISSUER_URL: Served(renewed.der)}
    checked.clock.advance(minutes=2)

    assert checked.signed(rotated.sign(BODY))


@cache
def cross_signed() -> Issued:
    """A root of Microsoft's that another authority has signed, as it stands above Azure's newer certificates."""
    return issue(name("Test TLS RSA Root G2"), root(), ca=True, purposes=[ExtendedKeyUsageOID.SERVER_AUTH])


@cache
def second_authority() -> Issued:
    return issue(
        name("Test TLS G2 RSA CA 02"),
        cross_signed(),
        ca=True,
        path_length=0,
        purposes=[ExtendedKeyUsageOID.SERVER_AUTH],
    )


def two_below_the_root() -> Issued:
    return leaf(
        issuer=second_authority(),
        issuer_url=ISSUER_URL,
        purposes=[ExtendedKeyUsageOID.SERVER_AUTH],
        key=genuine().key,
    )


LEAF_ALONE = {"in PEM": lambda: two_below_the_root().pem, "in DER": lambda: two_below_the_root().der}


@pytest.mark.parametrize("how", LEAF_ALONE)
def test_a_leaf_whose_issuers_are_known_needs_no_further_call(tmp_path: Path, how: str) -> None:
    checked = Checked(tmp_path, trusted=root().pem + second_authority().pem + cross_signed().pem)
    checked.serve(LEAF_ALONE[how]())

    assert checked.signed()
    assert checked.host.asked == [CERTIFICATE_URL]


@pytest.mark.parametrize("turned", [False, True], ids=["leaf to root", "issuers turned round"])
def test_a_file_with_the_whole_chain_needs_no_further_call(tmp_path: Path, turned: bool) -> None:
    checked = Checked(tmp_path, trusted=root().pem)
    issuers = [second_authority().pem, cross_signed().pem, root().pem]
    checked.serve(two_below_the_root().pem + b"".join(reversed(issuers) if turned else issuers))

    assert checked.signed()
    assert checked.host.asked == [CERTIFICATE_URL]


@pytest.mark.parametrize(
    "url",
    [
        "http://www.microsoft.com.evil.test/pkiops/certs/ca.crt",
        "http://www.microsoft.com@evil.test/pkiops/certs/ca.crt",
        "http://www.microsoft.com/elsewhere/ca.crt",
        "http://www.microsoft.com/pkiops/certs/../../ca.crt",
        "http://www.microsoft.com/pkiops/certs/%2e%2e%2fca.crt",
        "http://169.254.169.254/pkiops/certs/ca.crt",
        "ldap://www.microsoft.com/pkiops/certs/ca.crt",
        None,
    ],
)
def test_an_issuer_is_fetched_from_nowhere_else(tmp_path: Path, url: str | None) -> None:
    checked = Checked(tmp_path, trusted=root().pem)
    checked.serve(leaf(issuer_url=url).pem)

    refusal = checked.refusal()

    assert refusal.status == 401
    assert "WEBHOOK_TRUSTED_ROOTS_FILE" in refusal.reason
    assert checked.host.asked == [CERTIFICATE_URL]


def test_a_fetched_issuer_still_has_to_chain_to_a_root(tmp_path: Path) -> None:
    fake = issue(AUTHORITY_NAME, another_root(), ca=True, key=rsa_key("fake"), purposes=None)
    checked = Checked(tmp_path, trusted=root().pem)
    checked.host.served |= {
        CERTIFICATE_URL: Served(leaf(issuer=fake, issuer_url=ISSUER_URL).pem),
        ISSUER_URL: Served(fake.der),
    }

    assert checked.refusal().status == 401


def test_an_issuer_that_cannot_be_fetched_now_asks_the_sender_to_come_again(tmp_path: Path) -> None:
    checked = Checked(tmp_path, trusted=root().pem)
    checked.host.served |= {
        CERTIFICATE_URL: Served(leaf(issuer_url=ISSUER_URL).pem),
        ISSUER_URL: Served(failure=requests.ConnectTimeout("slow")),
    }

    assert checked.refusal().status == 503


# Keeping


def test_many_calls_cost_one_download_a_day(checked: Checked) -> None:
    for _ in range(23):
        assert checked.signed()
        checked.clock.advance(hours=1)
    assert checked.host.asked == [CERTIFICATE_URL]

    checked.clock.advance(hours=1)
    assert checked.signed()
    assert checked.signed()

    assert checked.host.asked == [CERTIFICATE_URL] * 2


def test_a_flood_of_forged_calls_costs_one_download_a_minute(checked: Checked) -> None:
    for _ in range(200):
        assert not checked.signed(FORGED)
    assert checked.host.asked == [CERTIFICATE_URL]

    checked.clock.advance(seconds=61)
    for _ in range(200):
        assert not checked.signed(FORGED)

    assert checked.host.asked == [CERTIFICATE_URL] * 2


def test_a_refused_certificate_is_not_fetched_again_for_a_minute(checked: Checked) -> None:
    checked.serve(leaf(days=(-90, -1)).pem)
    reasons = {checked.refusal().reason for _ in range(50)}
    assert checked.host.asked == [CERTIFICATE_URL]
    assert len(reasons) == 1

    checked.serve(genuine().pem)
    checked.clock.advance(seconds=61)

    assert checked.signed()


def test_a_burst_of_first_calls_shares_one_download(checked: Checked) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        assert go_on.wait(10)

    checked.serve(genuine().pem, before=hold)
    answers: list[bool] = []
    calls = [threading.Thread(target=lambda: answers.append(checked.signed())) for _ in range(20)]

    for call in calls:
        call.start()
    assert inside.wait(10)
    go_on.set()
    for call in calls:
        call.join(10)

    assert answers == [True] * 20
    assert checked.host.asked == [CERTIFICATE_URL]


def test_a_rotated_certificate_is_noticed_by_its_first_signature(checked: Checked) -> None:
    assert checked.signed()
    rotated = leaf(key=rsa_key("rotated"))
    checked.serve(rotated.pem)
    checked.clock.advance(minutes=5)

    assert checked.signed(rotated.sign(BODY))


def test_what_was_signed_before_a_rotation_counts_for_seven_days(checked: Checked) -> None:
    assert checked.signed()
    rotated = leaf(key=rsa_key("rotated"))
    checked.serve(rotated.pem)
    checked.clock.advance(minutes=5)
    assert checked.signed(rotated.sign(BODY))

    checked.clock.advance(days=6, hours=23)
    assert checked.signed()
    checked.clock.advance(hours=2)
    assert not checked.signed()
    assert checked.signed(rotated.sign(BODY))


def test_a_replaced_certificate_counts_no_longer_than_it_is_valid(checked: Checked) -> None:
    short = leaf(key=rsa_key("short-lived"), days=(-1, 1))
    checked.serve(short.pem)
    assert checked.signed(short.sign(BODY))
    checked.serve(genuine().pem)
    checked.clock.advance(hours=23)
    assert checked.signed()
    assert checked.signed(short.sign(BODY))

    checked.clock.advance(hours=2)

    assert not checked.signed(short.sign(BODY))


def test_an_outage_of_the_certificate_host_is_bridged_while_the_certificate_is_valid(checked: Checked) -> None:
    assert checked.signed()
    checked.serve(b"", failure=requests.ConnectionError("down"))

    checked.clock.advance(days=60)
    assert checked.signed()
    assert checked.signed()
    assert len(checked.host.asked) == 2
    checked.clock.advance(days=30)

    assert checked.refusal().status == 503


def test_nothing_counts_longer_than_its_authority_is_valid(tmp_path: Path) -> None:
    brief = issue(AUTHORITY_NAME, root(), ca=True, path_length=0, purposes=None, days=(-10, 1))
    checked = Checked(tmp_path, trusted=root().pem + brief.pem)
    assert checked.signed()

    checked.clock.advance(days=1, hours=1)

    assert checked.refusal().status == 401


def test_made_up_addresses_cost_at_most_eight_downloads_a_minute(checked: Checked) -> None:
    for number in range(100):
        assert checked.refusal(f"https://{HOST}/cert/made-up-{number}.cer").status == (401 if number < 8 else 503)
    assert len(checked.host.asked) == 8

    checked.clock.advance(seconds=61)

    assert checked.signed()


def test_made_up_addresses_do_not_push_the_real_one_out(checked: Checked) -> None:
    assert checked.signed()

    for number in range(100):
        assert checked.refusal(f"https://{HOST}/cert/made-up-{number}.cer").status in (401, 503)
        checked.clock.advance(seconds=7)

    assert checked.signed()
    assert checked.host.asked.count(CERTIFICATE_URL) == 1


def test_more_real_addresses_than_are_kept_push_the_oldest_out(checked: Checked) -> None:
    urls = [f"https://{HOST}/cert/real-{number}.cer" for number in range(10)]
    checked.host.served |= {url: Served(genuine().pem) for url in urls}

    for url in urls:
        assert checked.signed(url=url)
        checked.clock.advance(seconds=1)

    assert checked.host.asked == urls


def test_the_clock_is_the_one_that_was_given(checked: Checked) -> None:
    checked.clock.now = NOW.replace(year=NOW.year + 2)

    assert checked.refusal().status == 401
