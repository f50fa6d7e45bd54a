"""The rows of one organization and the rules every write meets: versions, system columns, states, money, keys, roles.

Values arrive typed (see payload.py). Knows nothing of HTTP, JSON or queries.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any

from local.simulators.dataverse.errors import refuse
from local.simulators.dataverse.schema import (
    BASE_LANGUAGE,
    CHOICES,
    REFERENCES,
    AlternateKey,
    Column,
    Kind,
    Reference,
    Table,
    cosell_columns,
    standard_tables,
)

if TYPE_CHECKING:
    from local.simulators.base import Clock

Values = dict[str, Any]


@dataclass(frozen=True)
class Row:
    table: str
    id: str
    version: int
    values: Mapping[str, Any]

    @property
    def etag(self) -> str:
        return f'W/"{self.version}"'

    @property
    def reference(self) -> Reference:
        return Reference(self.table, self.id)


@dataclass(frozen=True)
class Tombstone:
    id: str
    version: int


@dataclass(frozen=True)
class Role:
    """A security role, reduced to what co-selling meets. Table names, or `*` for every table."""

    read: frozenset[str] = frozenset()  # every row, which change tracking demands
    read_own: frozenset[str] = frozenset()  # only rows the user owns
    write: frozenset[str] = frozenset()
    customize: bool = False
    act_on_behalf: bool = False


EVERYTHING = frozenset({"*"})
SALES = frozenset({"opportunity", "lead", "account", "contact", "opportunityclose"})
LOOKED_UP = frozenset({"transactioncurrency", "systemuser", "organization", "role", "businessunit"})
ROLES: dict[str, Role] = {
    "System Administrator": Role(EVERYTHING, write=EVERYTHING, customize=True, act_on_behalf=True),
    "System Customizer": Role(EVERYTHING, write=frozenset({"publisher", "solution"}), customize=True),
    "Co-sell Sync": Role(SALES | LOOKED_UP, write=SALES),
    "Salesperson": Role(SALES | LOOKED_UP, write=SALES),
    "Own Records Only": Role(LOOKED_UP, read_own=SALES, write=SALES),
    "Delegate": Role(act_on_behalf=True),
}


@dataclass(frozen=True)
class Principal:
    """Whose rights a write uses, and who really sent it when that is someone else."""

    user_id: str
    on_behalf_by: str | None = None


CLOSING_MESSAGES = {1: ("won", "WinOpportunity"), 2: ("lost", "LoseOpportunity")}
OPEN, WON, LOST = 0, 1, 2


@dataclass
class Organization:
    """One Dataverse environment. `provisioned` says whether the product's columns and keys are there already."""

    clock: Clock
    provisioned: bool = True
    key_index_delay_s: float = 2.0
    reject_closed_edits: bool = False  # a customer's plug-in that forbids edits of won and lost opportunities
    metadata_change_expires_tokens: bool = True
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    version: int = 1_000_000
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    tombstones: dict[str, list[Tombstone]] = field(default_factory=dict)
    user_roles: dict[str, set[str]] = field(default_factory=dict)
    components: dict[str, list[str]] = field(default_factory=dict)  # solution -> what was added to it
    published: list[str] = field(default_factory=list)  # the ParameterXml of every publish

    def __post_init__(self) -> None:
        self.tables = standard_tables()
        self.rows = {name: {} for name in self.tables}
        self.tombstones = {name: [] for name in self.tables}
        self._indexes: dict[tuple[str, str], dict[tuple[Any, ...], set[str]]] = {}  # of alternate keys, built lazily
        self.system_user = str(uuid.uuid4())
        self._principal = Principal(self.system_user)
        self._fill()
        if self.provisioned:
            self._provision()

    def _fill(self) -> None:
        """What every organization is born with."""
        unit = self.add("businessunit", name="Contoso").reference
        self.add("systemuser", id=self.system_user, firstname="", lastname="SYSTEM", businessunitid=unit)
        self.user_roles[self.system_user] = {"System Administrator"}
        for name in ROLES:
            self.add("role", name=name, businessunitid=unit)
        currencies = [
            ("USD", "US Dollar", "$", 2, "1"),
            ("EUR", "Euro", "€", 2, "0.9"),
            ("GBP", "Pound", "£", 2, "0.8"),
        ]
        for iso, name, symbol, precision, rate in [*currencies, ("JPY", "Yen", "¥", 0, "150")]:
            self.add(
                "transactioncurrency",
                isocurrencycode=iso,
                currencyname=name,
                currencysymbol=symbol,
                currencyprecision=precision,
                exchangerate=Decimal(rate),
            )
        self.add(
            "organization",
            id=self.id,
            name="contoso",
            languagecode=BASE_LANGUAGE,
            expirechangetrackingindays=7,
            basecurrencyid=self.currency("USD").reference,
        )
        default = self.add(
            "publisher", uniquename="DefaultPublisherContoso", customizationprefix="new",
            customizationoptionvalueprefix=10_000, friendlyname="Default Publisher",
        )  # fmt: skip
        self.add(
            "solution",
            uniquename="Default",
            friendlyname="Default Solution",
            version="1.0",
            publisherid=default.reference,
        )

    def _provision(self) -> None:
        publisher = self.add(
            "publisher", uniquename="cosell", friendlyname="Co-sell", customizationprefix="cosell",
            customizationoptionvalueprefix=72_700,
        )  # fmt: skip
        self.add(
            "solution", uniquename="Cosell", friendlyname="Co-sell", version="1.0.0.0", publisherid=publisher.reference
        )
        for name in ("opportunity", "lead"):
            table = self.tables[name]
            for column in cosell_columns():
                table.adopt(column)
            key = AlternateKey("cosell_referralkey", ("cosell_referralid",), active_at=self.clock.now())
            table.keys[key.name] = key
            table.change_tracking = True

    def add(self, table: str, id: str | None = None, **values: Any) -> Row:  # noqa: A002 - the column's name
        """A row written by the system itself."""
        return self.create(self.tables[table], values, self._principal, id)

    # Finding

    def set_named(self, set_name: str) -> Table | None:
        return next((table for table in self.tables.values() if table.set_name == set_name), None)

    def find(self, table: str, row_id: str) -> Row | None:
        return self.rows[table].get(row_id.lower())

    def get(self, reference: Reference) -> Row:
        row = self.find(reference.table, reference.id)
        if row is None:
            raise refuse("ObjectDoesNotExist", table=reference.table, id=reference.id)
        return row

    def where(self, table: str, **values: Any) -> list[Row]:
        return [r for r in self.rows[table].values() if all(same(r.values.get(n), v) for n, v in values.items())]

    def currency(self, iso: str) -> Row:
        return self.where("transactioncurrency", isocurrencycode=iso)[0]

    @property
    def settings(self) -> Row:
        return self.rows["organization"][self.id]

    def user(self, name_or_id: str) -> Row:
        """A system user by full name or id."""
        for row in self.rows["systemuser"].values():
            if name_or_id in (row.id, row.values.get("fullname")):
                return row
        raise refuse("ObjectDoesNotExist", table="systemuser", id=name_or_id)

    def add_user(
        self,
        full_name: str,
        *roles: str,
        application_id: str | None = None,
        object_id: str | None = None,
        **columns: str,
    ) -> Row:
        """A person, or the application user of an app registration."""
        first, _, last = full_name.rpartition(" ")
        unit = self.where("businessunit")[0].reference
        row = self.add(
            "systemuser",
            firstname=first,
            lastname=last,
            applicationid=application_id,
            azureactivedirectoryobjectid=object_id,
            businessunitid=unit,
            isdisabled=False,
            **columns,
        )
        self.user_roles[row.id] = set(roles)
        return row

    # Rights

    def may(self, user_id: str, action: str, table: str) -> bool:
        roles = [ROLES[name] for name in self.user_roles.get(user_id, ())]
        granted: frozenset[str] = (
            frozenset().union(*(getattr(role, action) for role in roles)) if roles else frozenset()
        )
        return bool(granted & {"*", table})

    def may_customize(self, user_id: str) -> bool:
        return any(ROLES[name].customize for name in self.user_roles.get(user_id, ()))

    def may_act_on_behalf(self, user_id: str) -> bool:
        return any(ROLES[name].act_on_behalf for name in self.user_roles.get(user_id, ()))

    def visible(self, user_id: str, table: Table) -> list[Row]:
        """The rows the user may read. Raises when they may read none."""
        if self.may(user_id, "read", table.name):
            return list(self.rows[table.name].values())
        if self.may(user_id, "read_own", table.name):
            return self.where(table.name, owninguser=Reference("systemuser", user_id))
        raise refuse("PrivilegeDenied", user=user_id, action="Read", table=table.name)

    def require_read(self, user_id: str, row: Row) -> None:
        if not self.may(user_id, "read", row.table) and row not in self.visible(user_id, self.tables[row.table]):
            raise refuse("AccessDenied", user=user_id, action="Read", id=row.id, table=row.table)

    def require_write(self, principal: Principal, table: Table, action: str) -> None:
        if not self.may(principal.user_id, "write", table.name):
            raise refuse("PrivilegeDenied", user=principal.user_id, action=action, table=table.name)

    # Writing

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the writes inside, or none; version numbers given out stay used, as in a database."""
        rows = {name: dict(table) for name, table in self.rows.items()}
        tombstones = {name: list(stones) for name, stones in self.tombstones.items()}
        try:
            yield
        except BaseException:
            self.rows, self.tombstones = rows, tombstones
            self._indexes.clear()
            raise

    def next_version(self) -> int:
        self.version += 1
        return self.version

    def create(self, table: Table, values: Values, principal: Principal, row_id: str | None = None) -> Row:
        row_id = (row_id or values.pop(table.primary_id, None) or str(uuid.uuid4())).lower()
        if row_id in self.rows[table.name]:
            raise refuse("DuplicateRecord")
        now = self._now()
        who = Reference("systemuser", principal.user_id)
        by = Reference("systemuser", principal.on_behalf_by) if principal.on_behalf_by else None
        complete = {name: column.default for name, column in table.columns.items()}
        complete |= {"createdon": now, "createdby": who, "createdonbehalfby": by}
        if table.user_owned:
            complete["ownerid"] = who
        if table.has_currency:
            complete["transactioncurrencyid"] = self.settings.values["basecurrencyid"]
        complete |= values
        if "statuscode" in table.columns:
            status = table.columns["statuscode"]
            chosen = complete["statuscode"]
            complete["statuscode"] = self._default_status(table, OPEN) if chosen is None else chosen
            if status.states[complete["statuscode"]] != OPEN:
                raise refuse("InvalidStateCodeStatusCode", status=chosen, state=OPEN, table=table.name)
        complete[table.primary_id] = row_id
        if "overriddencreatedon" in values:
            complete["createdon"], complete["overriddencreatedon"] = values["overriddencreatedon"], now
        self._require_active_customer(table, values)
        return self._store(table, row_id, complete, principal)

    def update(self, row: Row, changes: Values, principal: Principal, *, closing: bool = False) -> Row:
        """Change a row; a change to the same value is a change too. `closing` is for the Win and Lose messages."""
        table = self.tables[row.table]
        complete = {**row.values, **changes}
        if not closing:
            self._require_allowed_state(table, row, changes, complete)
        if self.reject_closed_edits and not closing and table.name == "opportunity" and complete["statecode"] != OPEN:
            raise refuse("IsvAborted", message="This opportunity is closed; reopen it before you change it.")
        amounts = [complete.get(column.name) for column in table.columns.values() if column.kind is Kind.MONEY]
        if changes.get("transactioncurrencyid", ...) is None and any(amount is not None for amount in amounts):
            raise refuse("CurrencyNull")
        self._require_active_customer(table, changes)
        return self._store(table, row.id, complete, principal)

    def delete(self, row: Row) -> None:
        """Remove a row and what cascades from it; other rows lose their link to it."""
        if row.id not in self.rows[row.table]:
            return
        self._replace(row.table, row.id, None)
        self.tombstones[row.table].append(Tombstone(row.id, self.next_version()))
        for other, column in list(self.pointing_at(row.reference)):
            if column.cascades_delete:
                self.delete(other)
            else:
                current = self.rows[other.table].get(other.id)
                if current:
                    self.touch(current, **{column.name: None})

    def pointing_at(self, reference: Reference) -> Iterator[tuple[Row, Column]]:
        for table in self.tables.values():
            columns = [
                column
                for column in table.columns.values()
                if column.kind in REFERENCES and (column.create or column.update)
            ]
            for row in list(self.rows[table.name].values()):
                yield from ((row, column) for column in columns if row.values.get(column.name) == reference)

    def touch(self, row: Row, **values: Any) -> Row:
        """A change by the system itself: the version moves, modifiedon and modifiedby do not."""
        changed = replace(row, version=self.next_version(), values={**row.values, **values})
        changed = replace(changed, values={**changed.values, "versionnumber": changed.version})
        self._replace(row.table, row.id, changed)
        return changed

    def metadata_changed(self, table: Table) -> None:
        """After a change of the definition; delta tokens handed out so far expire, as integrators report."""
        if self.metadata_change_expires_tokens:
            self.expire_delta_tokens(table)

    def expire_delta_tokens(self, table: Table) -> None:
        table.delta_tokens_from = self.next_version()

    # Rules

    def _store(self, table: Table, row_id: str, values: Values, principal: Principal) -> Row:
        who = Reference("systemuser", principal.user_id)
        by = Reference("systemuser", principal.on_behalf_by) if principal.on_behalf_by else None
        values |= {"modifiedon": self._now(), "modifiedby": who, "modifiedonbehalfby": by}
        self._compute(table, values)
        self._require_unique(table, row_id, values)
        row = Row(table.name, row_id, self.next_version(), values)
        values["versionnumber"] = row.version
        self._replace(table.name, row_id, row)
        return row

    def _replace(self, table: str, row_id: str, row: Row | None) -> None:
        """The one place where a row comes, changes or goes; keeps the indexes of alternate keys true."""
        before = self.rows[table].pop(row_id, None)
        if row:
            self.rows[table][row_id] = row
        for (of, key_name), index in self._indexes.items():
            key = self.tables[of].keys.get(key_name) if of == table else None
            if key and before and (held := key_values(key, before.values)) is not None:
                index[held].discard(row_id)
            if key and row and (held := key_values(key, row.values)) is not None:
                index.setdefault(held, set()).add(row_id)

    def _index(self, table: Table, key: AlternateKey) -> dict[tuple[Any, ...], set[str]]:
        """The ids of rows by the values of a key."""
        index = self._indexes.get((table.name, key.name))
        if index is None:
            index = self._indexes[table.name, key.name] = {}
            for row in self.rows[table.name].values():
                if (held := key_values(key, row.values)) is not None:
                    index.setdefault(held, set()).add(row.id)
        return index

    def drop_key(self, table: Table, key: AlternateKey) -> None:
        del table.keys[key.name]
        self._indexes.pop((table.name, key.name), None)

    def _compute(self, table: Table, values: Values) -> None:
        """Columns the server keeps itself."""
        if "fullname" in table.columns:
            values["fullname"] = " ".join(filter(None, (values.get("firstname"), values.get("lastname"))))
        if table.user_owned:
            owner = values["ownerid"]
            if owner is None:
                raise refuse("InvalidArgument", message="The owner of a row cannot be empty.")
            users = owner.table == "systemuser"
            values["owninguser"], values["owningteam"] = (owner, None) if users else (None, owner)
            values["owningbusinessunit"] = self.get(owner).values.get("businessunitid")
        if table.name == "opportunity" and values["isrevenuesystemcalculated"]:
            values["estimatedvalue"] = values["totalamount"] = Decimal(0)  # the sum of its products: there are none
        if table.has_currency and values["transactioncurrencyid"]:
            currency = self.get(values["transactioncurrencyid"]).values
            values["exchangerate"] = rate = currency["exchangerate"]
            unit = Decimal(1).scaleb(-currency["currencyprecision"])
            for column in list(table.columns.values()):
                if column.kind is Kind.MONEY and f"{column.name}_base" in table.columns:
                    amount = values.get(column.name)
                    exact = None if amount is None else Decimal(amount).quantize(unit, ROUND_HALF_EVEN)
                    values[column.name] = exact
                    values[f"{column.name}_base"] = None if exact is None else round(exact / rate, 4)

    def _default_status(self, table: Table, state: int) -> int:
        return next(option for option, of in table.columns["statuscode"].states.items() if of == state)

    def _require_allowed_state(self, table: Table, row: Row, changes: Values, complete: Values) -> None:
        """Which states a plain update may set, and that the status belongs to the state."""
        if "statecode" not in table.columns or not changes.keys() & {"statecode", "statuscode"}:
            return
        before, wanted = row.values["statecode"], complete["statecode"]
        if table.name == "opportunity" and changes.get("statecode") in CLOSING_MESSAGES:
            state, message = CLOSING_MESSAGES[changes["statecode"]]
            raise refuse("UseCloseMessage", state=state, message=message)
        if table.name == "lead" and before != wanted and OPEN not in (before, wanted):
            raise refuse("LeadAlreadyClosed")
        if before != wanted and "statuscode" not in changes:
            complete["statuscode"] = self._default_status(table, wanted)
        self.require_status_of(table, complete["statuscode"], wanted)

    def require_status_of(self, table: Table, status: int, state: int) -> None:
        if table.columns["statuscode"].states.get(status) != state:
            raise refuse("InvalidStateCodeStatusCode", status=status, state=state, table=table.name)

    def _require_active_customer(self, table: Table, values: Values) -> None:
        reference = values.get("customerid") if table.name in ("opportunity", "lead") else None
        if reference and self.get(reference).values["statecode"] != OPEN:
            raise refuse("CustomerIsInactive", table=reference.table)

    # Alternate keys, https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity

    def key_status(self, table: Table, key: AlternateKey) -> str:
        """EntityKeyIndexStatus. When the index is ready it becomes Active, or Failed over duplicate rows."""
        if key.failed:
            return "Failed"
        if self.clock.now() < key.active_at:
            return "Pending"
        if key.active_at != datetime.min.replace(tzinfo=UTC):  # decided once, at the first look after it was built
            key.failed = any(len(ids) > 1 for ids in self._index(table, key).values())
            key.active_at = datetime.min.replace(tzinfo=UTC)
        return "Failed" if key.failed else "Active"

    def reactivate(self, table: Table, key: AlternateKey) -> None:
        if self.key_status(table, key) != "Failed":
            raise refuse("ReactivateOnlyFailed")
        key.failed = False
        key.active_at = self.clock.now() + timedelta(seconds=self.key_index_delay_s)

    def find_by_key(self, table: Table, values: Values) -> Row | None:
        """The row with these values of an active key. Raises when no such key is defined."""
        for key in table.keys.values():
            if set(key.columns) == set(values) and self.key_status(table, key) == "Active":
                wanted = key_values(key, values)
                ids = self._index(table, key).get(wanted) if wanted is not None else None
                return self.rows[table.name][next(iter(ids))] if ids else None
        raise refuse("EntityKeyNotDefined", table=table.name)

    def _require_unique(self, table: Table, row_id: str, values: Values) -> None:
        for key in table.keys.values():
            wanted = key_values(key, values)
            if wanted is None or self.key_status(table, key) != "Active":
                continue
            if self._index(table, key).get(wanted, set()) - {row_id}:
                label = key.labels.get(BASE_LANGUAGE, key.schema_name)
                raise refuse("DuplicateRecordEntityKey", key=label, columns=", ".join(key.columns))

    def _now(self) -> str:
        return json_time(self.clock.now())


def key_values(key: AlternateKey, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """What the key compares; None when a column is empty, for then the row takes no part in uniqueness."""
    held = tuple(comparable(values.get(name)) for name in key.columns)
    return None if None in held else held


def comparable(value: Any) -> Any:
    """Text compares without case, as the database's collation does."""
    return value.casefold() if isinstance(value, str) else value


def same(left: Any, right: Any) -> bool:
    return bool(comparable(left) == comparable(right))


def json_time(moment: datetime) -> str:
    """Whole seconds, as Dataverse stores them."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def label_of(column: Column, value: Any) -> str | None:
    """The label of an option or a flag; None for a value without one."""
    if column.kind in CHOICES or column.kind is Kind.BOOLEAN:
        return column.options.get(int(value)) if value is not None else None
    return None
