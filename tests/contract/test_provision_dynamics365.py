"""Provisioning a Dynamics 365 environment: from bare to what the product's own client needs, and never past it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.identity import CredentialUnavailableError

from infra.crm.dynamics365.__main__ import SignedInPerson, main
from infra.crm.dynamics365.columns import load_wanted
from local.simulators.base import Clock
from local.simulators.dataverse import DataverseSimulator
from local.simulators.dataverse.schema import Column, Kind
from local.simulators.systems import Simulators
from shared.errors import SignInFailed
from shared.services import Services
from shared.settings import ROOT

START = datetime(2026, 5, 1, 8, tzinfo=UTC)
TABLES = ("opportunity", "lead")


class Bench:
    """A bare environment, the command, and what it said."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = Clock(frozen_at=START)
        self.systems = Simulators(self.clock)
        self.org = self.bare(key_index_delay_s=40)
        self.session = requests.Session()
        self.settings = self.systems.settings()
        self.directory = tmp_path

    def bare(self, **options: Any) -> DataverseSimulator:
        org = DataverseSimulator(
            self.systems.entra,
            origin=self.systems.dataverse.origin,
            clock=self.clock,
            provisioned=False,
            **options,
        )
        self.systems.systems["dataverse"] = org
        return org

    def services(self, **settings: str) -> Services:
        self.systems.mount(self.session)
        return Services(
            {**self.settings, **settings}, clock=self.clock.now, sleep=self.clock.advance, session=self.session
        )

    def run(self, *arguments: str, **settings: str) -> tuple[int, str]:
        said: list[str] = []
        code = main(arguments, self.services(**settings), say=said.append, sleep=self.clock.advance)
        return code, "\n".join(said)

    def writes(self) -> list[str]:
        return [f"{entry.method} {entry.path}" for entry in self.org.log.entries if entry.method != "GET"]

    def table(self, name: str) -> Any:
        return self.org.organization.tables[name]

    def add_column(self, table: str, column: Column) -> None:
        column.custom = True
        self.table(table).adopt(column)
        rows = self.org.organization.rows[table]
        for row in list(rows.values()):
            rows[row.id] = type(row)(row.table, row.id, row.version, {**row.values, column.name: None})


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    with made.systems:
        yield made


def test_a_bare_environment_gets_everything_and_says_so(bench: Bench) -> None:
    code, said = bench.run()

    assert code == 0, said
    for table in TABLES:
        wanted = load_wanted().columns_of(table)
        found = bench.table(table).columns
        assert {c.name: (c.attribute_type, c.max_length or None) for c in wanted} == {
            c.name: (found[c.name].kind.value, found[c.name].max_length) for c in wanted
        }
        assert [c.label for c in wanted] == [found[c.name].label for c in wanted]
        key = bench.table(table).keys["cosell_referralkey"]
        assert bench.org.organization.key_status(bench.table(table), key) == "Active"
        assert f"add to {table}: cosell_referralid (text, 100 characters)" in said
    assert len(bench.org.organization.published) == 1
    assert said.endswith("Done: every column that the field map names can be read.")


def test_everything_is_recorded_in_the_solution(bench: Bench) -> None:
    bench.run()

    recorded = bench.org.organization.components["Cosell"]
    wanted = load_wanted()
    assert set(recorded) == {
        *(f"{table}.{column.name}" for table in TABLES for column in wanted.columns_of(table)),
        *(f"{table}.{key.schema_name.lower()}" for table in TABLES for key in wanted.keys_of(table)),
    }


def test_options_have_the_values_and_labels_of_the_file(bench: Bench) -> None:
    bench.run()

    columns = bench.table("opportunity").columns
    for column in load_wanted().columns:
        if column.options:
            assert columns[column.name].options == {option.value: option.label for option in column.options}


def test_a_plan_is_told_and_nothing_is_written(bench: Bench) -> None:
    code, said = bench.run("--plan")

    assert code == 0
    assert "add publisher cosell" in said
    assert "add to lead: key cosell_referralkey on cosell_referralid" in said
    assert bench.writes() == []


def test_a_second_run_writes_nothing(bench: Bench) -> None:
    bench.run()
    bench.org.log.clear()

    code, said = bench.run()

    assert code == 0
    assert "nothing: everything is there" in said
    assert bench.writes() == []


def test_the_apps_own_client_creates_finds_and_reads_a_record_afterwards(bench: Bench) -> None:
    bench.run()
    crm = bench.services().crm
    referral_id = "3f2c1f6e-0000-4000-8000-000000000001"
    values: Mapping[str, Any] = {
        "name": "Deal",
        "cosell_syncwithpartnercenter": True,
        "cosell_referralid": referral_id,
        "cosell_referrallink": "https://partner.microsoft.com/referrals/v2/inbox?id=" + referral_id,
        "cosell_howcanmicrosofthelp": 727000006,
        "cosell_products": "x" * 2000,
        "cosell_audit": "y" * 8000,
    }

    created, is_new = crm.create("opportunity", referral_id, values)
    found = crm.find_by_referral("opportunity", referral_id)

    assert is_new
    assert found == created
    shown = {name: value for name, value in values.items() if name != "cosell_referrallink"}
    assert {name: created.values[name] for name in shown} == shown


def test_the_index_of_the_key_is_waited_for(bench: Bench) -> None:
    began = bench.clock.now()

    _, said = bench.run()

    assert said.count("wait until the index of key cosell_referralkey of opportunity is built") == 1
    assert (bench.clock.now() - began).total_seconds() >= 40


def test_an_index_that_is_never_built_ends_in_words(bench: Bench) -> None:
    bench.org = bench.bare(key_index_delay_s=10**6)

    code, said = bench.run()

    assert code == 1
    assert "not finished after 0:15:00: wait until the index of key cosell_referralkey" in said


def test_a_column_of_another_type_is_refused_before_anything_is_written(bench: Bench) -> None:
    bench.add_column("opportunity", Column("cosell_products", Kind.MEMO, max_length=2000))
    bench.add_column("lead", Column("cosell_syncwithpartnercenter", Kind.INTEGER))

    code, said = bench.run()

    assert code == 1
    assert "opportunity.cosell_products exists with type Memo, needed is String" in said
    assert "lead.cosell_syncwithpartnercenter exists with type Integer, needed is Boolean" in said
    assert "Next step: correct this in Power Apps, then run again" in said
    assert bench.writes() == []


def test_a_publisher_with_another_prefix_is_refused(bench: Bench) -> None:
    bench.org.organization.add(
        "publisher", uniquename="cosell", customizationprefix="cs", customizationoptionvalueprefix=72_700
    )

    code, said = bench.run()

    assert code == 1
    assert "publisher cosell has customizationprefix cs, needed is cosell" in said


def test_a_column_that_is_too_short_is_lengthened_and_keeps_its_label(bench: Bench) -> None:
    bench.run()
    column = bench.table("opportunity").columns["cosell_products"]
    column.max_length, column.labels = 100, {1033: "Our products", 1031: "Unsere Produkte"}

    code, said = bench.run()

    assert code == 0
    assert "lengthen opportunity.cosell_products from 100 to 2000 characters" in said
    assert column.max_length == 2000
    assert column.labels == {1033: "Our products", 1031: "Unsere Produkte"}


def test_a_longer_column_and_options_of_the_admin_stay(bench: Bench) -> None:
    bench.run()
    columns = bench.table("opportunity").columns
    columns["cosell_products"].max_length = 4000
    columns["cosell_howcanmicrosofthelp"].options[727000099] = "Ours"
    bench.org.log.clear()

    code, _ = bench.run()

    assert code == 0
    assert bench.writes() == []


def test_a_missing_option_is_added(bench: Bench) -> None:
    bench.run()
    options = bench.table("opportunity").columns["cosell_howcanmicrosofthelp"].options
    del options[727000003]

    code, said = bench.run()

    assert code == 0
    assert "add to opportunity.cosell_howcanmicrosofthelp the option 727000003 Proof Of Concept or Demo" in said
    assert bench.table("opportunity").columns["cosell_howcanmicrosofthelp"].options[727000003] == (
        "Proof Of Concept or Demo"
    )


def test_change_tracking_stays_off_unless_asked_for_and_the_note_says_how(bench: Bench) -> None:
    _, said = bench.run()

    assert [bench.table(table).change_tracking for table in TABLES] == [False, False]
    assert said.count("--enable-change-tracking") == 2


def test_change_tracking_is_switched_on_when_asked_for(bench: Bench) -> None:
    code, said = bench.run("--enable-change-tracking")

    assert code == 0
    assert [bench.table(table).change_tracking for table in TABLES] == [True, True]
    assert "switch change tracking on for lead, for good" in said
    assert "Note:" not in said


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
@pytest.mark.parametrize("served_before", range(0, 22, 3))
def test_a_lost_answer_anywhere_makes_nothing_twice(bench: Bench, kind: str, served_before: int) -> None:
    if served_before:
        bench.org.faults.add("delay", seconds=0, times=served_before, method="POST")
    bench.org.faults.add(kind, method="POST")

    code, said = bench.run()

    assert code == 0, said
    recorded = bench.org.organization.components["Cosell"]
    assert len(recorded) == len(set(recorded))
    assert len(bench.org.organization.where("publisher", uniquename="cosell")) == 1
    assert len(bench.org.organization.where("solution", uniquename="Cosell")) == 1


@pytest.mark.parametrize("path", ["Attributes", "PublishXml"])
def test_a_throttled_run_waits_and_goes_on(bench: Bench, path: str) -> None:
    bench.org.faults.add("throttle", method="POST", path=path, retry_after_s=30)

    code, said = bench.run()

    assert code == 0, said
    assert "waits, then looks again" in said
    assert len(bench.org.organization.published) == 1


def test_rows_with_the_same_referral_are_named_as_the_reason_of_a_failed_key(bench: Bench) -> None:
    bench.add_column("opportunity", Column("cosell_referralid", Kind.STRING, max_length=100))
    for _ in range(2):
        bench.org.organization.add("opportunity", name="Deal", cosell_referralid="same")

    code, said = bench.run()

    assert code == 1
    assert "build the index of key cosell_referralkey of opportunity again" in said
    assert "several rows share one value in cosell_referralid" in said


def test_a_failed_key_is_built_again_once_the_rows_differ(bench: Bench) -> None:
    bench.add_column("opportunity", Column("cosell_referralid", Kind.STRING, max_length=100))
    rows = [bench.org.organization.add("opportunity", name="Deal", cosell_referralid="same") for _ in range(2)]
    bench.run()
    bench.org.people.delete("opportunity", rows[0].id)

    code, said = bench.run()

    assert code == 0, said
    assert (
        bench.org.organization.key_status(
            bench.table("opportunity"), bench.table("opportunity").keys["cosell_referralkey"]
        )
        == "Active"
    )


def test_a_column_that_only_the_admins_field_map_names_is_pointed_out(bench: Bench) -> None:
    text = (ROOT / "mappings" / "dynamics365.toml").read_text(encoding="utf-8")
    ours = bench.directory / "ours.toml"
    ours.write_text(text.replace('crm = "cosell_products"', 'crm = "new_products"'), encoding="utf-8")

    planned, plan = bench.run("--plan", MAPPING_FILE=str(ours))
    code, said = bench.run(MAPPING_FILE=str(ours))

    note = "the field map names opportunity.new_products, which does not exist"
    assert (planned, code) == (0, 1)
    assert note in plan
    assert note in said
    assert "new_products" in said.partition("Stopped:")[2]


def test_an_environment_without_sales_is_named(bench: Bench) -> None:
    del bench.org.organization.tables["opportunity"]

    code, said = bench.run()

    assert code == 1
    assert "this environment has no table opportunity" in said
    assert "Next step: install Dynamics 365 Sales in it" in said


def test_a_caller_who_may_not_customize_is_told_so(bench: Bench) -> None:
    bench.org.organization.user_roles.clear()

    code, said = bench.run()

    assert code == 1
    assert "answered 403" in said


def test_a_missing_setting_is_named(bench: Bench) -> None:
    code, said = bench.run(DYNAMICS365_URL="")

    assert code == 1
    assert "DYNAMICS365_URL is missing" in said


def test_without_a_secret_the_signed_in_person_is_asked() -> None:
    class Cli:
        def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            return AccessToken(json.dumps(scopes), int(START.timestamp()) + 3600)

    person = SignedInPerson("https://org.crm.dynamics.com/.default", lambda: START, Cli())  # type: ignore[arg-type]

    assert person.token() == '["https://org.crm.dynamics.com/.default"]'


def test_when_nobody_is_signed_in_the_error_says_what_to_do() -> None:
    class Nobody:
        def get_token(self, *_: str, **__: Any) -> AccessToken:
            raise CredentialUnavailableError(message="Please run 'az login' to set up an account")

    person = SignedInPerson("https://org.crm.dynamics.com/.default", lambda: START, Nobody())  # type: ignore[arg-type]

    with pytest.raises(SignInFailed, match="run `az login`, or set DYNAMICS365_TENANT_ID"):
        person.token()
