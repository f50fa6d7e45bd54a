"""Signing in: tokens are cached, refresh tokens rotate and survive, and every refusal says what an admin should do."""

from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import CredentialUnavailableError

from local.simulators.base import Clock, InProcessAdapter
from local.simulators.entra import EntraSimulator
from shared import errors
from shared.remote.auth import (
    ENTRA,
    WHAT_TO_DO,
    CachedToken,
    ClientCredentials,
    EntraTokens,
    ManagedIdentity,
    RefreshToken,
)
from shared.remote.http import Remote
from shared.remote.token_store import SECRET_NAME, FileTokenStore, KeyVaultTokenStore

START = datetime(2026, 5, 1, tzinfo=UTC)
AUTHORITY = "https://login.microsoftonline.com"
REFERRALS = "https://api.partner.microsoft.com/.default"
WEBHOOKS = "https://api.partnercenter.microsoft.com/.default"


class Store:
    """A token store in memory that can fail."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.broken = False

    def load(self) -> str | None:
        return self.token

    def save(self, token: str) -> None:
        if self.broken:
            raise errors.Unavailable("the vault is closed")
        self.token = token


class Tenant:
    """A simulated Entra ID and the ways into it."""

    def __init__(self) -> None:
        self.clock = Clock(frozen_at=START)
        self.entra = EntraSimulator(clock=self.clock)
        self.session = requests.Session()
        self.session.mount(AUTHORITY, InProcessAdapter(self.entra))
        self.app = self.entra.app("partner_center")

    def tokens(self, **changed: str) -> EntraTokens:
        remote = Remote(
            "Microsoft Entra ID",
            AUTHORITY,
            None,
            dialect=ENTRA,
            session=self.session,
            clock=self.clock.now,
            sleep=self.clock.advance,
        )
        app = {
            "tenant_id": self.app.tenant_id,
            "client_id": self.app.client_id,
            "client_secret": self.app.client_secret,
        }
        return EntraTokens(remote, **{**app, **changed}, clock=self.clock.now)

    def user(self, store: Store, configured: str | None = None, scope: str = REFERRALS) -> RefreshToken:
        return RefreshToken(self.tokens(), scope, store, configured)

    def requests_sent(self) -> int:
        return self.entra.log.count("POST")


@pytest.fixture
def tenant() -> Tenant:
    return Tenant()


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def test_a_token_is_kept_until_five_minutes_before_it_expires(tenant: Tenant) -> None:
    source = ClientCredentials(tenant.tokens(), REFERRALS)

    first = source.token()
    tenant.clock.advance(3299 - 1)
    same = source.token()
    tenant.clock.advance(2)
    next_one = source.token()

    assert first == same != next_one
    assert tenant.requests_sent() == 2
    assert claims(first)["aud"] == "https://api.partner.microsoft.com"


def test_a_token_that_was_refused_is_replaced(tenant: Tenant) -> None:
    source = ClientCredentials(tenant.tokens(), REFERRALS)
    source.token()

    source.token(refused=source.token())

    assert tenant.requests_sent() == 2


def test_threads_that_need_a_token_at_once_fetch_one() -> None:
    class Slow(CachedToken):
        fetched = 0
        everyone_is_here = threading.Barrier(8)

        def _fetch(self) -> tuple[str, datetime]:
            self.fetched += 1
            return f"token-{self.fetched}", datetime.max.replace(tzinfo=UTC)

        def arrive(self) -> str:
            self.everyone_is_here.wait(timeout=10)
            return self.token()

    source = Slow(lambda: START)

    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda _: source.arrive(), range(8)))

    assert set(given) == {"token-1"}


def test_threads_whose_calls_one_expired_session_refuses_fetch_one_token() -> None:
    class Counted(CachedToken):
        fetched = 0

        def _fetch(self) -> tuple[str, datetime]:
            self.fetched += 1
            return f"token-{self.fetched}", datetime.max.replace(tzinfo=UTC)

    source = Counted(lambda: START)
    expired = source.token()

    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda _: source.token(refused=expired), range(8)))

    assert set(given) == {"token-2"}


def test_the_newest_refresh_token_is_stored_at_once_and_used_next(tenant: Tenant) -> None:
    first = tenant.entra.consent("partner_center")
    store = Store()
    source = tenant.user(store, configured=first)

    token = source.token()
    second = store.token
    source.token(refused=source.token())

    assert claims(token)["upn"] == "sync@fabrikam.example"
    assert len({first, second, store.token}) == 3
    assert f"refresh_token={second}".encode() in tenant.entra.log.entries[-1].request_body


def test_two_audiences_share_one_stored_refresh_token(tenant: Tenant) -> None:
    store = Store(tenant.entra.consent("partner_center"))

    referrals = tenant.user(store, scope=REFERRALS).token()
    after_first = store.token
    webhooks = tenant.user(store, scope=WEBHOOKS).token()

    assert claims(referrals)["aud"] == "https://api.partner.microsoft.com"
    assert claims(webhooks)["aud"] == "https://api.partnercenter.microsoft.com"
    assert f"refresh_token={after_first}".encode() in tenant.entra.log.entries[-1].request_body


def test_a_refused_stored_token_gives_way_to_the_one_in_the_settings(tenant: Tenant) -> None:
    store = Store(tenant.entra.consent("partner_center"))
    tenant.entra.revoke("partner_center")
    tenant.clock.advance(1)
    configured = tenant.entra.consent("partner_center")

    token = tenant.user(store, configured).token()

    assert claims(token)["upn"] == "sync@fabrikam.example"
    assert tenant.requests_sent() == 2
    assert store.token not in (None, configured)


def test_the_settings_token_is_tried_once_and_not_when_it_is_the_stored_one(tenant: Tenant) -> None:
    old = tenant.entra.consent("partner_center")
    tenant.entra.revoke("partner_center")

    with pytest.raises(errors.SignInFailed, match="consent again"):
        tenant.user(Store(old), configured=old).token()

    assert tenant.requests_sent() == 1


def test_a_bad_secret_is_no_reason_to_try_the_settings_token(tenant: Tenant) -> None:
    store = Store(tenant.entra.consent("partner_center"))
    source = RefreshToken(tenant.tokens(client_secret="wrong"), REFERRALS, store, "another")

    with pytest.raises(errors.SignInFailed, match="the client secret is wrong"):
        source.token()

    assert tenant.requests_sent() == 1


def test_without_any_refresh_token_the_setting_is_named(tenant: Tenant) -> None:
    with pytest.raises(errors.SignInFailed, match="PARTNER_CENTER_REFRESH_TOKEN") as raised:
        tenant.user(Store()).token()

    assert raised.value.retry_after_s == 300
    assert tenant.requests_sent() == 0


def test_a_store_that_fails_to_save_is_logged_and_work_goes_on(
    tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tenant.entra.consent("partner_center"))
    store.broken = True

    token = tenant.user(store).token()

    assert claims(token)["upn"] == "sync@fabrikam.example"
    assert [record.msg for record in caplog.records] == ["auth.refresh_token_not_stored"]
    assert str(store.token) not in caplog.text


@pytest.mark.parametrize("aadsts", [int(code) for code in WHAT_TO_DO])
def test_each_known_refusal_says_what_to_do(tenant: Tenant, aadsts: int) -> None:
    tenant.entra.fail_next(aadsts)
    source = ClientCredentials(tenant.tokens(), REFERRALS)

    with pytest.raises(errors.SignInFailed) as raised:
        source.token()

    assert WHAT_TO_DO[str(aadsts)] in str(raised.value)
    assert raised.value.code == str(aadsts)
    assert raised.value.retry_after_s == 300
    assert tenant.app.client_secret not in str(raised.value)


@pytest.mark.parametrize("body", [{"error": "invalid_request", "error_description": "AADSTS99: odd"}, "<html>", "[]"])
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_any_other_refusal_is_a_failed_sign_in_too(tenant: Tenant, status: int, body: Any) -> None:
    tenant.entra.faults.add("status", status=status, body=body)

    with pytest.raises(errors.SignInFailed, match="check tenant id, client id"):
        ClientCredentials(tenant.tokens(), REFERRALS).token()


def test_a_token_endpoint_that_stumbles_is_asked_again(tenant: Tenant) -> None:
    tenant.entra.faults.add("drop_after")
    tenant.entra.faults.add("status", status=503)

    assert ClientCredentials(tenant.tokens(), REFERRALS).token()


@pytest.mark.parametrize("body", [{}, {"access_token": "x"}, {"access_token": "x", "expires_in": "later"}, []])
def test_an_answer_without_a_token_is_unavailable(tenant: Tenant, body: Any) -> None:
    tenant.entra.faults.add("status", status=200, body=body)

    with pytest.raises(errors.Unavailable, match="without access_token"):
        ClientCredentials(tenant.tokens(), REFERRALS).token()


def test_the_managed_identity_is_asked_for_the_scope() -> None:
    class Identity:
        def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            assert scopes == ("https://contoso.crm.dynamics.com/.default",)
            return AccessToken("token", int(START.timestamp()) + 3600)

    source = ManagedIdentity("https://contoso.crm.dynamics.com/.default", credential=Identity(), clock=lambda: START)

    assert source.token() == "token"


def test_a_missing_managed_identity_is_a_failed_sign_in() -> None:
    class Nobody:
        def get_token(self, *_: str, **__: Any) -> AccessToken:
            raise CredentialUnavailableError(message="no identity here")

    source = ManagedIdentity("scope/.default", "client-1", credential=Nobody())

    with pytest.raises(errors.SignInFailed, match=r"user-assigned client-1.*assign the identity") as raised:
        source.token()

    assert raised.value.retry_after_s == 300


def test_a_file_keeps_the_token_for_its_owner_only(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path / "new" / "token")

    before = store.load()
    store.save("first")
    store.save("second")

    assert (before, store.load()) == (None, "second")
    assert stat.S_IMODE((tmp_path / "new" / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["token"]


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()
    (tmp_path / "blocker").write_text("")

    with pytest.raises(errors.Unavailable, match=str(tmp_path / "token")):
        FileTokenStore(tmp_path / "token").load()
    with pytest.raises(errors.Unavailable, match="cannot be stored"):
        FileTokenStore(tmp_path / "blocker" / "token").save("x")
    with pytest.raises(errors.Unavailable, match="cannot be stored"):
        FileTokenStore(tmp_path / "token").save("x")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["blocker", "token"]


class Vault:
    """Stands for azure-keyvault-secrets' client, for which there is no local server."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.closed = False

    def get_secret(self, name: str) -> Any:
        if self.closed:
            raise HttpResponseError(message="Forbidden")
        if name not in self.secrets:
            raise ResourceNotFoundError
        return type("Secret", (), {"value": self.secrets[name]})

    def set_secret(self, name: str, value: str) -> None:
        if self.closed:
            raise HttpResponseError(message="Forbidden")
        self.secrets[name] = value


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Vault:
    vault = Vault()
    monkeypatch.setattr("azure.keyvault.secrets.SecretClient", lambda *_, **__: vault)
    return vault


def test_a_vault_keeps_the_token_as_a_secret(vault: Vault) -> None:
    store = KeyVaultTokenStore("https://kv.example")

    before = store.load()
    store.save("newest")

    assert (before, store.load()) == (None, "newest")
    assert vault.secrets == {SECRET_NAME: "newest"}


def test_a_closed_vault_says_which_role_is_missing(vault: Vault) -> None:
    vault.closed = True
    store = KeyVaultTokenStore("https://kv.example")

    with pytest.raises(errors.Unavailable, match="Key Vault Secrets Officer"):
        store.load()
    with pytest.raises(errors.Unavailable, match="cannot be stored"):
        store.save("x")
