"""The Entra simulator: which requests get a token, what is in it, and in which words the rest are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import requests

from local.simulators.base import Clock, InProcessAdapter, Request
from local.simulators.entra import (
    AADSTS,
    MICROSOFT_TENANT_ID,
    PARTNER_CENTER_REFERRALS,
    PARTNER_CENTER_WEBHOOKS,
    PARTNER_TENANT_ID,
    BadToken,
    EntraSimulator,
)

AUTHORITY = "https://login.microsoftonline.com"
ORG = "https://contoso.crm.dynamics.com"


@pytest.fixture
def entra() -> EntraSimulator:
    simulator = EntraSimulator(clock=Clock(frozen_at=datetime(2026, 5, 1, tzinfo=UTC)))
    simulator.resources.add(ORG)
    return simulator


@pytest.fixture
def session(entra: EntraSimulator) -> requests.Session:
    session = requests.Session()
    session.mount(AUTHORITY, InProcessAdapter(entra))
    return session


def form(entra: EntraSimulator, app_name: str = "dynamics365", **changes: str | None) -> dict[str, str]:
    """A right client credentials request, and then changed; None leaves a field out."""
    app = entra.app(app_name)
    fields: dict[str, str | None] = {
        "grant_type": "client_credentials",
        "client_id": app.client_id,
        "client_secret": app.client_secret,
        "scope": f"{ORG}/.default",
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def refresh(entra: EntraSimulator, token: str) -> dict[str, str]:
    scope = f"{PARTNER_CENTER_REFERRALS}/.default"
    return form(entra, "partner_center", grant_type="refresh_token", refresh_token=token, scope=scope)


def ask(session: requests.Session, data: dict[str, str], tenant: str = PARTNER_TENANT_ID, v1: bool = False) -> Any:
    path = "oauth2/token" if v1 else "oauth2/v2.0/token"
    return session.post(f"{AUTHORITY}/{tenant}/{path}", data=data)


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def bearer(token: str) -> Request:
    request = Request("GET", "/")
    request.headers["Authorization"] = f"Bearer {token}"
    return request


def test_client_credentials_give_a_token_for_the_app_itself(entra: EntraSimulator, session: requests.Session) -> None:
    answer = ask(session, form(entra))

    assert answer.status_code == 200
    assert answer.json().keys() == {"token_type", "expires_in", "ext_expires_in", "access_token"}
    assert answer.json()["expires_in"] == 3599
    token = claims(answer.json()["access_token"])
    assert (token["aud"], token["appid"]) == (ORG, entra.app("dynamics365").client_id)
    assert token["tid"] == PARTNER_TENANT_ID
    assert "scp" not in token
    assert "amr" not in token


def test_a_refresh_token_gives_a_token_for_the_user_who_signed_in_with_mfa(
    entra: EntraSimulator, session: requests.Session
) -> None:
    answer = ask(session, refresh(entra, entra.consent("partner_center")))

    token = claims(answer.json()["access_token"])
    assert token["aud"] == PARTNER_CENTER_REFERRALS
    assert token["upn"] == "sync@fabrikam.example"
    assert token["scp"] == "user_impersonation"
    assert "mfa" in token["amr"]


def test_refreshing_rotates_the_refresh_token_and_the_old_one_stays_valid(
    entra: EntraSimulator, session: requests.Session
) -> None:
    old = entra.consent("partner_center")

    new = ask(session, refresh(entra, old)).json()["refresh_token"]

    assert new != old
    assert ask(session, refresh(entra, old)).status_code == 200
    assert ask(session, refresh(entra, new)).status_code == 200


def test_one_refresh_token_serves_both_partner_center_audiences(
    entra: EntraSimulator, session: requests.Session
) -> None:
    token = entra.consent("partner_center")

    other = refresh(entra, token) | {"scope": f"{PARTNER_CENTER_WEBHOOKS}/.default offline_access"}

    assert claims(ask(session, other).json()["access_token"])["aud"] == PARTNER_CENTER_WEBHOOKS


def test_a_refresh_token_dies_after_90_days(entra: EntraSimulator, session: requests.Session) -> None:
    token = entra.consent("partner_center")

    entra.clock.advance(timedelta(days=89).total_seconds())
    assert ask(session, refresh(entra, token)).status_code == 200

    entra.clock.advance(timedelta(days=1).total_seconds())
    assert ask(session, refresh(entra, token)).json()["error_codes"] == [700082]


def test_a_refresh_token_survives_a_restart_of_the_simulator(entra: EntraSimulator) -> None:
    token = entra.consent("partner_center")
    restarted = EntraSimulator(clock=entra.clock)
    session = requests.Session()
    session.mount(AUTHORITY, InProcessAdapter(restarted))

    assert ask(session, refresh(restarted, token)).status_code == 200


def test_revoking_ends_earlier_refresh_tokens_only(entra: EntraSimulator, session: requests.Session) -> None:
    earlier = entra.consent("partner_center")
    entra.revoke("partner_center")
    entra.clock.advance(1)
    later = entra.consent("partner_center")

    refused = ask(session, refresh(entra, earlier))

    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert refused.json()["error_codes"] == [50173]
    assert ask(session, refresh(entra, later)).status_code == 200


def test_the_v1_endpoint_takes_a_resource_and_answers_with_numbers_as_text(
    entra: EntraSimulator, session: requests.Session
) -> None:
    data = form(entra, scope=None, resource=ORG)

    answer = ask(session, data, v1=True).json()

    assert answer["expires_in"] == "3599"
    assert answer["resource"] == ORG
    assert int(answer["expires_on"]) - int(answer["not_before"]) == 3600
    assert claims(answer["access_token"])["aud"] == ORG


REFUSALS: list[tuple[str, dict[str, str | None], int, str, int]] = [
    ("no grant type", {"grant_type": None}, 400, "invalid_request", 900144),
    ("unknown grant type", {"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
    ("no client id", {"client_id": None}, 400, "invalid_request", 900144),
    ("unknown client", {"client_id": "c1d0a5e2-9999-4000-8000-000000000009"}, 400, "unauthorized_client", 700016),
    ("no secret", {"client_secret": None}, 401, "invalid_client", 7000218),
    ("wrong secret", {"client_secret": "guess"}, 401, "invalid_client", 7000215),
    ("no scope", {"scope": None}, 400, "invalid_request", 900144),
    ("scope without .default", {"scope": ORG}, 400, "invalid_scope", 1002012),
    ("scope with a path", {"scope": f"{ORG}/user_impersonation"}, 400, "invalid_scope", 1002012),
    ("unknown resource", {"scope": "https://other.example/.default"}, 400, "invalid_resource", 500011),
    ("garbled refresh token", {"grant_type": "refresh_token", "refresh_token": "x"}, 400, "invalid_grant", 70000),
    ("no refresh token", {"grant_type": "refresh_token"}, 400, "invalid_request", 900144),
    ("garbled code", {"grant_type": "authorization_code", "code": "x"}, 400, "invalid_grant", 70000),
]


@pytest.mark.parametrize(
    ("changes", "status", "error", "code"), [row[1:] for row in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_a_wrong_request_is_refused_in_the_words_of_entra(
    entra: EntraSimulator,
    session: requests.Session,
    changes: dict[str, str | None],
    status: int,
    error: str,
    code: int,
) -> None:
    answer = ask(session, form(entra, **changes))

    assert answer.status_code == status
    assert (answer.json()["error"], answer.json()["error_codes"]) == (error, [code])
    assert answer.json()["error_description"].startswith(f"AADSTS{code}: ")
    assert answer.json().keys() >= {"timestamp", "trace_id", "correlation_id"}


@pytest.mark.parametrize(
    ("tenant", "code"),
    [("00000000-0000-0000-0000-000000000000", 90002), (MICROSOFT_TENANT_ID, 700016)],
    ids=["unknown tenant", "another tenant"],
)
def test_an_app_signs_in_at_its_own_tenant_only(
    entra: EntraSimulator, session: requests.Session, tenant: str, code: int
) -> None:
    assert ask(session, form(entra), tenant).json()["error_codes"] == [code]


def test_a_refresh_token_of_another_app_is_refused(entra: EntraSimulator, session: requests.Session) -> None:
    token = entra.consent("partner_user")

    assert ask(session, refresh(entra, token)).json()["error_codes"] == [70000]


@pytest.mark.parametrize("code", AADSTS)
def test_each_refusal_can_be_ordered_for_the_next_request(
    entra: EntraSimulator, session: requests.Session, code: int
) -> None:
    entra.fail_next(code)

    refused, served = ask(session, form(entra)), ask(session, form(entra))

    assert refused.status_code == AADSTS[code][0]
    assert refused.json()["error_codes"] == [code]
    assert served.status_code == 200


def test_another_process_orders_a_refusal_by_http(entra: EntraSimulator, session: requests.Session) -> None:
    assert session.post(f"{AUTHORITY}/_aadsts", json={"code": 50173}).status_code == 204
    assert session.post(f"{AUTHORITY}/_aadsts", json={"code": 1}).status_code == 400

    assert ask(session, form(entra)).json()["error_codes"] == [50173]


def test_signing_in_by_redirect_gives_a_code_that_is_good_for_tokens_once(
    entra: EntraSimulator, session: requests.Session
) -> None:
    app = entra.app("partner_center")
    redirect_uri = "http://localhost:8400/done"
    query = {"client_id": app.client_id, "response_type": "code", "redirect_uri": redirect_uri, "state": "s1"}

    sent_back = session.get(
        f"{AUTHORITY}/{PARTNER_TENANT_ID}/oauth2/v2.0/authorize", params=query, allow_redirects=False
    )

    assert sent_back.status_code == 302
    answer = parse_qs(urlsplit(sent_back.headers["Location"]).query)
    assert answer["state"] == ["s1"]
    grant = {"grant_type": "authorization_code", "code": answer["code"][0], "redirect_uri": redirect_uri}
    data = refresh(entra, "") | grant
    assert ask(session, data | {"redirect_uri": "http://localhost/else"}).json()["error_codes"] == [500112]
    tokens = ask(session, data).json()
    assert ask(session, refresh(entra, tokens["refresh_token"])).status_code == 200
    assert ask(session, data).json()["error_codes"] == [54005]


def test_a_resource_learns_whose_token_it_got(entra: EntraSimulator) -> None:
    app_only = entra.verify(bearer(entra.access_token("seller", ORG)), ORG)
    delegated = entra.verify(bearer(entra.access_token("partner_user", ORG)), ORG)

    assert (app_only.app, app_only.user) == ("seller", None)
    assert (delegated.app, delegated.user) == ("partner_user", "pat@fabrikam.example")


@pytest.mark.parametrize("problem", ["missing", "malformed", "expired", "audience"])
def test_a_resource_learns_what_is_wrong_with_a_token(entra: EntraSimulator, problem: str) -> None:
    token = entra.access_token("seller", PARTNER_CENTER_REFERRALS if problem == "audience" else ORG)
    if problem == "expired":
        entra.clock.advance(3600)
    request = {"missing": Request("GET", "/"), "malformed": bearer(token[:-3])}.get(problem, bearer(token))

    with pytest.raises(BadToken, match=problem) as refused:
        entra.verify(request, ORG)

    assert refused.value.problem == problem
