"""What a new referral, an invitation and a new record contain, by the deal types a partner can create.

https://learn.microsoft.com/partner-center/developer/create-a-referral
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from shared.create import NewReferral, invitation, new_record, new_referral
from shared.mapping import load_field_map
from shared.settings import ROOT

FIELD_MAP = load_field_map(ROOT / "mappings" / "dynamics365.toml")
OPPORTUNITY, LEAD = FIELD_MAP.tables["opportunity"], FIELD_MAP.tables["lead"]

RECORD: Mapping[str, Any] = {
    "opportunityid": "7c1d7d0e-6f0e-4f0a-9a55-0d6d3c1b1a10",
    "name": "✓ Contoso - data platform modernization",
    "estimatedvalue": Decimal("50000.0000"),
    "transactioncurrencyid.isocurrencycode": "USD",
    "estimatedclosedate": "2026-11-14",
    "description": "Migration assessment done; needs architecture review.",
    "cosell_products": "SOL-15974-MQF",
    "cosell_howcanmicrosofthelp": None,
    "cosell_referralvisibility": False,
    "parentaccountid.name": "Contoso Customer Inc",
    "parentaccountid.address1_line1": "1 Example Way",
    "parentaccountid.address1_line2": None,
    "parentaccountid.address1_city": "Redmond",
    "parentaccountid.address1_stateorprovince": "WA",
    "parentaccountid.address1_postalcode": "98052",
    "parentaccountid.address1_country": "us",
    "parentcontactid.firstname": "Sue",
    "parentcontactid.lastname": "Smith",
    "parentcontactid.telephone1": "1234567890",
    "parentcontactid.emailaddress1": "sue.smith@contoso.example",
    "owninguser.firstname": "John",
    "owninguser.lastname": "Doe",
    "owninguser.address1_telephone1": "1231231234",
    "owninguser.internalemailaddress": "john.doe@fabrikam.example",
    "statecode": 0,
    "statuscode": 1,
}
CO_SELL = {"cosell_howcanmicrosofthelp": 727000002}


def created(**columns: Any) -> NewReferral:
    values = {**RECORD, **columns}
    return new_referral(FIELD_MAP, OPPORTUNITY, {row.name: row.lens.read_crm(values) for row in OPPORTUNITY.fields})


# ---------------------------------------------------------------- new referrals

PRIVATE: dict[str, Any] = {
    "name": "Contoso - data platform modernization",
    "externalReferenceId": "7c1d7d0e-6f0e-4f0a-9a55-0d6d3c1b1a10",
    "status": "New",
    "substatus": "Pending",
    "qualification": "SalesQualified",
    "type": "Independent",
    "target": [],
    "customerProfile": {
        "name": "Contoso Customer Inc",
        "address": {
            "addressLine1": "1 Example Way",
            "city": "Redmond",
            "state": "WA",
            "postalCode": "98052",
            "country": "US",
        },
        "team": [
            {
                "firstName": "Sue",
                "lastName": "Smith",
                "phoneNumber": "1234567890",
                "email": "sue.smith@contoso.example",
            }
        ],
    },
    "consent": {
        "consentToToShareInfoWithOthers": True,
        "consentToContact": True,
        "consentToShareReferralWithMicrosoftSellers": False,
    },
    "details": {
        "notes": "Migration assessment done; needs architecture review.",
        "dealValue": Decimal(50000),
        "currency": "USD",
        "closingDateTime": "2026-11-14T00:00:00Z",
        "requirements": {
            "solutions": [{"type": "Name", "id": "SOL-15974-MQF"}],
            "additionalRequirements": {"attributes": [{"type": "CustomerMarketplaceIntent", "id": "HaveNotDecided"}]},
        },
    },
    "team": [
        {"firstName": "John", "lastName": "Doe", "phoneNumber": "1231231234", "email": "john.doe@fabrikam.example"}
    ],
}


def test_without_help_and_visibility_the_deal_is_private() -> None:
    new = created()

    assert new.problems == []
    assert new.help == ""
    assert new.document == PRIVATE


def test_a_visible_deal_without_help_is_partner_led() -> None:
    new = created(cosell_referralvisibility=True)

    visible = PRIVATE["consent"] | {"consentToShareReferralWithMicrosoftSellers": True}
    assert new.problems == []
    assert new.help == ""
    assert new.document == PRIVATE | {"consent": visible}


@pytest.mark.parametrize("visibility", [True, False, None])
def test_help_makes_a_co_sell_deal_and_makes_it_visible(visibility: bool | None) -> None:
    new = created(**CO_SELL, cosell_referralvisibility=visibility)

    assert new.problems == []
    assert new.help == "CustomerTechnicalArchitecture"
    assert new.document == PRIVATE | {
        "type": "Shared",
        "consent": PRIVATE["consent"] | {"consentToShareReferralWithMicrosoftSellers": True},
        "target": [{"type": "SolutionProfile", "id": "SOL-15974-MQF"}],
    }


def test_each_solution_of_a_co_sell_deal_is_a_target() -> None:
    new = created(**CO_SELL, cosell_products="SOL-2; SOL-1")

    assert [target["id"] for target in new.document["target"]] == ["SOL-1", "SOL-2"]


def test_what_every_new_referral_gets_is_not_shared_between_them() -> None:
    one, other = created(), created()

    one.document["details"]["requirements"]["additionalRequirements"]["attributes"][0]["id"] = "Yes"

    assert other.document == PRIVATE


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"name": None}, "Topic: is empty"),
        ({"estimatedvalue": None}, "Est. Revenue with Currency: is empty"),
        ({"transactioncurrencyid.isocurrencycode": None}, "Est. Revenue with Currency: is empty"),
        ({"estimatedclosedate": None}, "Est. Close Date: is empty"),
        ({"cosell_products": " , "}, "Products: is empty"),
        ({"parentaccountid.name": None}, "Account Name: is empty"),
        ({"parentaccountid.address1_line1": None}, "Account Address 1: Street 1: is empty"),
        ({"parentaccountid.address1_city": ""}, "Account Address 1: City: is empty"),
        ({"parentaccountid.address1_country": None}, "Account Address 1: Country/Region: is empty"),
        ({"owninguser.internalemailaddress": None}, "Owner: lacks e-mail"),
        ({"owninguser.firstname": None}, "Owner: lacks first name"),
        ({**CO_SELL, "parentcontactid.telephone1": None}, "Contact: lacks phone"),
        (
            {**CO_SELL, **{column: None for column in RECORD if column.startswith("parentcontactid.")}},
            "Contact: lacks first name, last name, phone, e-mail",
        ),
    ],
)
def test_each_missing_mandatory_field_is_named_by_its_label(columns: dict[str, Any], problem: str) -> None:
    new = created(**columns)

    assert len(new.problems) == 1
    assert str(new.problems[0]).startswith(f"{problem}, and Partner Center needs it. ")


@pytest.mark.parametrize(
    "columns",
    [
        {"description": None},
        {"parentaccountid.address1_line2": None, "parentaccountid.address1_postalcode": None},
        {"owninguser.address1_telephone1": None},
        {column: None for column in RECORD if column.startswith("parentcontactid.")},
    ],
)
def test_what_is_optional_may_be_missing(columns: dict[str, Any]) -> None:
    assert created(**columns).problems == []


def test_an_empty_field_is_left_out_of_the_document() -> None:
    new = created(description=None)

    assert "notes" not in new.document["details"]


def test_all_missing_fields_are_named_at_once() -> None:
    new = created(**dict.fromkeys(RECORD))

    labels = [problem.label for problem in new.problems]
    assert labels == [row.label for row in OPPORTUNITY.fields if row.required == "always"]


@pytest.mark.parametrize(
    ("columns", "label", "value", "known"),
    [
        ({"parentaccountid.address1_country": "United States"}, "Country/Region", "UNITED STATES", "two-letter"),
        ({"cosell_howcanmicrosofthelp": 4711}, "How can Microsoft help?", "4711", "727000001"),
    ],
)
def test_a_value_without_counterpart_keeps_the_referral_from_being_created(
    columns: dict[str, Any], label: str, value: str, known: str
) -> None:
    new = created(**columns)

    assert len(new.problems) == 1
    assert new.problems[0].label.endswith(label)
    assert value in new.problems[0].message
    assert known in new.problems[0].accepted


# ---------------------------------------------------------------- the invitation


def test_the_invitation_repeats_our_deal_in_the_same_engagement() -> None:
    own = created(**CO_SELL).document | {
        "id": "4111fffc-f9ee-4d53-bba6-569135228642",
        "engagementId": "37ef26aa-1d15-4533-9f93-a69bd33ab1e5",
        "eTag": '"69007a1e"',
        "organizationId": "7d23e5ca-19dc-4eaa-aac8-5e6b559f0d1d",
        "status": "Active",
        "substatus": "Accepted",
        "createdDateTime": "2026-02-24T21:04:06.0372014Z",
        "links": {"self": {}},
        "inviteContext": {"assistanceRequestCode": "Unknown"},
    }
    before = copy.deepcopy(own)

    document = invitation(own, "CustomerTechnicalArchitecture")

    shared = ("name", "externalReferenceId", "qualification", "customerProfile", "details", "team")
    assert document == {key: own[key] for key in shared} | {
        "engagementId": "37ef26aa-1d15-4533-9f93-a69bd33ab1e5",
        "type": "Shared",
        "status": "New",
        "substatus": "Pending",
        "consent": own["consent"],
        "target": [{"type": "BusinessProfileLocation", "id": "msft"}],
        "inviteContext": {"assistanceRequestCode": "CustomerTechnicalArchitecture"},
    }
    assert own == before


def test_the_invitation_makes_a_private_deal_visible() -> None:
    own = created().document | {"engagementId": "37ef26aa"}

    document = invitation(own, "GeneralOrOther")

    assert document["consent"]["consentToShareReferralWithMicrosoftSellers"] is True
    assert own["consent"]["consentToShareReferralWithMicrosoftSellers"] is False


# ---------------------------------------------------------------- new records

INBOUND: Mapping[str, Any] = {
    "id": "c5fbb3b6-be74-4795-9fb5-4324c73fed37",
    "name": None,
    "status": "New",
    "substatus": "Pending",
    "customerProfile": {
        "name": "Adatum Ltd",
        "address": {"addressLine1": "2 Example Street", "city": "Dublin", "postalCode": "D02", "country": "ie"},
        "team": [{"firstName": "Ann", "lastName": "Byrne", "phoneNumber": "1", "email": "ann.byrne@adatum.example"}],
    },
    "consent": {"consentToToShareInfoWithOthers": True, "consentToContact": True},
    "details": {
        "notes": "We look for help.\r\n",
        "dealValue": 10000,
        "currency": "USD",
        "closingDateTime": "2026-12-01T00:00:00Z",
        "requirements": {"solutions": [{"id": "SOL-2", "name": "b"}, {"id": "SOL-1"}]},
    },
    "inviteContext": {"assistanceRequestCode": "Unknown"},
}


def record(table: Any, **changes: Any) -> Any:
    document = {**INBOUND, **changes}
    return new_record(table, {row.name: row.lens.read_partner_center(document) for row in table.fields})


def test_a_deal_that_waits_for_an_answer_becomes_an_opportunity_on_hold() -> None:
    new = record(OPPORTUNITY)

    assert new.problems == []
    assert new.values == {
        "name": "Partner Center deal",
        "estimatedvalue": Decimal(10000),
        "transactioncurrencyid.isocurrencycode": "USD",
        "estimatedclosedate": "2026-12-01",
        "description": "We look for help.",
        "cosell_products": "SOL-1, SOL-2",
        "cosell_referralvisibility": False,
        "cosell_microsoftstatus": "New / Pending",
        "statecode": 0,
        "statuscode": 2,
    }


def test_an_accepted_deal_becomes_an_open_opportunity() -> None:
    new = record(OPPORTUNITY, status="Active", substatus="Accepted", name="Adatum rollout")

    assert (new.values["statecode"], new.values["statuscode"]) == (0, 1)
    assert new.values["name"] == "Adatum rollout"


def test_help_that_was_asked_for_there_is_shown_here() -> None:
    new = record(OPPORTUNITY, inviteContext={"assistanceRequestCode": "ProofOfConceptOrDemo"})

    assert new.values["cosell_howcanmicrosofthelp"] == 727000003


def test_a_lead_gets_its_customer_and_contact() -> None:
    new = record(LEAD)

    assert new.problems == []
    assert new.values == {
        "subject": "Partner Center lead",
        "companyname": "Adatum Ltd",
        "firstname": "Ann",
        "lastname": "Byrne",
        "emailaddress1": "ann.byrne@adatum.example",
        "telephone1": "1",
        "address1_line1": "2 Example Street",
        "address1_city": "Dublin",
        "address1_postalcode": "D02",
        "address1_country": "IE",
        "estimatedamount": Decimal(10000),
        "transactioncurrencyid.isocurrencycode": "USD",
        "estimatedclosedate": "2026-12-01",
        "description": "We look for help.",
        "statecode": 0,
        "statuscode": 1,
    }


@pytest.mark.parametrize("profile", [None, {}, {"team": []}, {"team": None, "address": None}])
def test_a_lead_without_a_contact_still_has_a_last_name(profile: dict[str, Any] | None) -> None:
    new = record(LEAD, customerProfile=profile)

    assert new.values["lastname"] == "(unknown)"
    assert "companyname" not in new.values


def test_a_value_without_counterpart_is_named_and_the_record_is_created_without_it() -> None:
    new = record(OPPORTUNITY, inviteContext={"assistanceRequestCode": "BrandNew"})

    assert "cosell_howcanmicrosofthelp" not in new.values
    assert new.values["name"] == "Partner Center deal"
    assert [problem.message for problem in new.problems] == [
        "Partner Center holds “BrandNew”, which has no counterpart"
    ]
