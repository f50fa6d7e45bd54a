"""The rows of one org and what every write does to them: stamps, owners, undo, long transactions, the Recycle Bin.

Values arrive as read by payload.py. Knows nothing of HTTP or SOQL; what a save must not break is in rules.py, what it
sets off in behaviours.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from local.simulators.salesforce import behaviours
from local.simulators.salesforce.access import Access
from local.simulators.salesforce.ids import Ids
from local.simulators.salesforce.newborn import fill, provision
from local.simulators.salesforce.rules import (
    DuplicateRule,
    ValidationRule,
    check_locks,
    check_lookups,
    check_required,
    check_rules,
    check_unique,
    matcher,
)
from local.simulators.salesforce.schema import Field, Kind, SObject
from local.simulators.salesforce.setup_objects import standard_objects

if TYPE_CHECKING:
    from local.simulators.base import Clock

Values = dict[str, Any]


@dataclass(frozen=True)
class Row:
    object: str
    id: str
    values: Mapping[str, Any]

    @property
    def deleted(self) -> bool:
        return bool(self.values.get("IsDeleted"))


@dataclass(frozen=True)
class Saving:
    """Who writes, and what the request's headers say about it."""

    user: str
    api: bool = False  # through the API: locks, assignment rules and automation apply
    allow_duplicates: bool = False
    auto_assign: bool = True
    version: str = "67.0"


@dataclass(frozen=True)
class Deletion:
    object: str
    id: str
    at: datetime


@dataclass
class OpenTransaction:
    """Somebody's long transaction: what it wrote is seen by nobody else until it commits."""

    id: str
    started_at: datetime
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)


@dataclass
class Organization:
    """One org. `provisioned` says whether the product's fields and permission set are there already."""

    clock: Clock
    provisioned: bool = True
    multi_currency: bool = True
    state_country_picklists: bool = False
    opportunity_teams: bool = False
    page_size: int = 2000  # rows on a page of a query
    api_max: int = 100_000
    api_used: int = 0
    duplicate_key_misspelled: bool = True  # `duplicateResut`, as captured; else `duplicateResult`
    crlf_in_text_areas: bool = False  # text areas come back with \r\n where \n was sent
    lead_assignment_owner: str | None = None  # whom the active lead assignment rule gives leads to
    deletions_known_since: datetime | None = None  # when the Recycle Bin was last emptied

    def __post_init__(self) -> None:
        self.objects = standard_objects()
        self.ids = Ids()
        self.access = Access(self)
        self.rows: dict[str, dict[str, Row]] = {name: {} for name in self.objects}
        self.deletions: list[Deletion] = []
        self.deleted_with: dict[str, str] = {}  # row that went because its parent went -> the parent
        self.transactions: dict[str, OpenTransaction] = {}
        self.written = 0  # how often a row came, changed or went
        self.validation_rules: list[ValidationRule] = []
        self.duplicate_rules: list[DuplicateRule] = []
        self.locks: dict[str, int] = {}  # row -> how many more API writes find it locked
        self.automation: dict[str, int] = {}  # object -> how many more API writes a flow will follow up
        self.definitions_changed_at: dict[str, datetime] = dict.fromkeys(self.objects, self.now())
        self._into: OpenTransaction | None = None
        self._undo: list[Callable[[], object]] = []
        self.system_user = self.ids.next("005")
        self._by_system = Saving(self.system_user)
        self.id = self.integration_user = ""
        fill(self)
        if self.provisioned:
            provision(self)

    def add(self, name: str, id: str | None = None, **values: Any) -> Row:  # noqa: A002 - the field's name
        """A row written by the system itself."""
        return self.create(self.objects[name], values, self._by_system, id)

    def add_user(self, first: str, last: str, email: str, **values: Any) -> str:
        alias = (first[:1] + last[:4]).lower() or "user"
        given = {"Username": email, "Email": email, "Alias": alias, "FirstName": first or None, "LastName": last}
        return self.add("User", **{"IsActive": True, "UserType": "Standard", **given, **values}).id

    # Definitions

    def has(self, switch: str | None) -> bool:
        return switch is None or bool(getattr(self, switch))

    def object_named(self, name: str) -> SObject | None:
        """The object of that name in any case; None when this org has none."""
        found = self.objects.get(name) or next(
            (each for each in self.objects.values() if each.name.lower() == name.lower()), None
        )
        return found if found and self.has(found.needs) else None

    def object_of(self, row_id: str) -> SObject | None:
        """The object whose prefix the id has."""
        prefix = row_id[:3]
        return next((each for each in self.objects.values() if each.prefix == prefix and self.has(each.needs)), None)

    def add_field(self, sobject: SObject, new: Field) -> Field:
        known = sobject.fields.get(new.name)
        identity = new.metadata_id or (known.metadata_id if known else "") or self.ids.next("00N")
        new = replace(new, metadata_id=identity)
        sobject.adopt(new)
        self.definition_changed(sobject.name)
        return new

    def definition_changed(self, name: str) -> None:
        self.definitions_changed_at[name] = self.now()

    def definitions_changed(self) -> None:
        """Something changed what users see of every object."""
        self.definitions_changed_at = dict.fromkeys(self.objects, self.now())

    # Finding

    def now(self) -> datetime:
        return self.clock.now().replace(microsecond=0)

    def find(self, name: str, row_id: str) -> Row | None:
        if self._into and (name, row_id) in self._into.rows:
            return self._into.rows[name, row_id]
        return self.rows[name].get(row_id)

    def live(self, name: str) -> list[Row]:
        """The rows that are not deleted, as whoever writes now sees them."""
        rows = self.rows[name]
        if self._into and self._into.rows:
            rows = rows | {row_id: row for (of, row_id), row in self._into.rows.items() if of == name}
        return [row for row in rows.values() if not row.values.get("IsDeleted")]

    def where(self, name: str, **values: Any) -> list[Row]:
        """The rows that are not deleted and hold these values."""
        rows = self.live(name)
        for field_name, value in values.items():
            test = matcher(value)
            rows = [row for row in rows if test(row.values.get(field_name))]
        return rows

    def user(self, name_or_id: str) -> Row:
        """The user of that full name, user name or id. Raises LookupError."""
        for row in self.rows["User"].values():
            if name_or_id in (row.id, row.id[:15], row.values["Name"], row.values["Username"]):
                return row
        raise LookupError(f"there is no user {name_or_id!r}")

    def value(self, row: Row, known: Field) -> Any:
        """What the row holds in a field, the computed ones included."""
        if known.kind is Kind.ADDRESS:
            return self._address(row, known)
        if known.name == "ContactId" and row.object == "Opportunity":
            primary = self.where("OpportunityContactRole", OpportunityId=row.id, IsPrimary=True)
            return primary[0].values["ContactId"] if primary else None
        return row.values.get(known.name, known.default)

    def _address(self, row: Row, known: Field) -> dict[str, Any] | None:
        fields = self.objects[row.object].fields
        parts = {key: row.values.get(name) for key, name in known.parts.items() if self.has(fields[name].needs)}
        unknown = dict.fromkeys(("geocodeAccuracy", "latitude", "longitude"))
        return {**parts, **unknown} if any(parts.values()) else None

    # Writing. Each write is all or nothing by `undoing`.

    def create(self, sobject: SObject, values: Values, saving: Saving, row_id: str | None = None) -> Row:
        new = {name: known.default for name, known in sobject.fields.items()} | values
        if "OwnerId" in sobject.fields and "OwnerId" not in values:
            new["OwnerId"] = saving.user
        if "CurrencyIsoCode" in sobject.fields and not new["CurrencyIsoCode"]:
            new["CurrencyIsoCode"] = "USD"
        new["Id"] = row_id or self.ids.next(sobject.prefix)
        now = self.now()
        new |= self._stamps(sobject, saving.user, now, created=True)
        check_required(self, sobject, new, creating=True)
        with self.undoing():
            return self._save(sobject, None, new, set(values), saving)

    def update(self, row: Row, values: Values, saving: Saving) -> Row:
        sobject = self.objects[row.object]
        check_locks(self, row, saving)
        at = max(self.now(), row.values["SystemModstamp"])  # time stamps of a row never go back
        new = {**row.values, **values, **self._stamps(sobject, saving.user, at)}
        check_required(self, sobject, new, creating=False)
        with self.undoing():
            return self._save(sobject, row, new, set(values), saving)

    def _save(self, sobject: SObject, old: Row | None, new: Values, given: set[str], saving: Saving) -> Row:
        if saving.api and sobject.name == "Lead" and saving.auto_assign and self.lead_assignment_owner:
            new["OwnerId"] = self.lead_assignment_owner
        check_lookups(self, sobject, new, given)
        behaviours.before_save(self, sobject, old, new, given)
        row = Row(sobject.name, new["Id"], new)
        if saving.api and old is None:
            check_locks(self, row, saving)
        check_unique(self, sobject, row, given)
        check_rules(self, sobject, old, row, saving)
        self.put(row)
        behaviours.after_save(self, old, row, given, saving)
        if saving.api and self.automation.get(sobject.name, 0) > 0:
            self.automation[sobject.name] -= 1
            self._automation_follows(row)
        return self.find(row.object, row.id) or row

    def touch(self, row: Row, **values: Any) -> Row:
        """Change a row past all rules and stamps."""
        return self.put(replace(row, values={**row.values, **values}))

    def delete(self, row: Row, saving: Saving, *, with_parent: str | None = None) -> None:
        """Into the Recycle Bin, with what hangs on it; an object without one loses the row for good."""
        sobject = self.objects[row.object]
        check_locks(self, row, saving)
        with self.undoing():
            behaviours.before_delete(self, row)
            for child in behaviours.cascade(self, row):
                self.delete(child, replace(saving, api=False), with_parent=row.id)
            if sobject.recycled or with_parent:
                stamps = self._stamps(sobject, saving.user, self.now())
                self.put(replace(row, values={**row.values, **stamps, "IsDeleted": True}))
                if with_parent:
                    self._set(self.deleted_with, row.id, with_parent)
            else:
                self._drop(row)
            self.log_deletion(row)

    def undelete(self, row: Row, saving: Saving) -> None:
        stamps = self._stamps(self.objects[row.object], saving.user, self.now())
        self.put(replace(row, values={**row.values, **stamps, "IsDeleted": False}))
        self.deletions = [each for each in self.deletions if each.id != row.id]
        for child in [id_ for id_, parent in self.deleted_with.items() if parent == row.id]:
            del self.deleted_with[child]
            sobject = self.object_of(child)
            if sobject:
                self.undelete(self.rows[sobject.name][child], saving)

    def log_deletion(self, row: Row) -> None:
        entry = Deletion(row.object, row.id, self.now())
        self.deletions.append(entry)
        self._undo.append(lambda: self.deletions.remove(entry))

    def _stamps(self, sobject: SObject, user: str, now: datetime, *, created: bool = False) -> Values:
        stamps = {"LastModifiedDate": now, "LastModifiedById": user, "SystemModstamp": now}
        if created:
            stamps |= {"CreatedDate": now, "CreatedById": user}
        return {name: value for name, value in stamps.items() if name in sobject.fields}

    def _automation_follows(self, row: Row) -> None:
        """A flow saves the row again, one second later."""
        current = self.find(row.object, row.id) or row
        at = current.values["SystemModstamp"] + timedelta(seconds=1)
        self.touch(current, SystemModstamp=at, LastModifiedDate=at, LastModifiedById=self.system_user)

    # Rows in and out, undone when the write they belong to fails

    def put(self, row: Row) -> Row:
        if self._into:
            self._into.rows[row.object, row.id] = row
        else:
            self._set(self.rows[row.object], row.id, row)
        return row

    def _drop(self, row: Row) -> None:
        rows = self.rows[row.object]
        self.written += 1
        known = rows.pop(row.id)
        self._undo.append(lambda: rows.__setitem__(row.id, known))

    def _set(self, table: dict[str, Any], key: str, value: Any) -> None:
        self.written += 1
        if key in table:
            before = table[key]
            self._undo.append(lambda: table.__setitem__(key, before))
        else:
            self._undo.append(lambda: table.pop(key, None))
        table[key] = value

    @contextmanager
    def undoing(self) -> Iterator[None]:
        """Undo what was written inside when it ends with an exception."""
        mark = len(self._undo)
        try:
            yield
        except BaseException:
            self.undo_to(mark)
            raise

    def mark(self) -> int:
        """A place to go back to, for `undo_to`."""
        return len(self._undo)

    def undo_to(self, mark: int) -> None:
        while len(self._undo) > mark:
            self.written += 1
            self._undo.pop()()

    def forget_undo(self) -> None:
        """Nothing up to here will be undone any more."""
        self._undo.clear()

    # Long transactions

    def begin(self) -> str:
        name = f"tx{len(self.transactions) + 1}-{self.ids.next('tx0')[-6:]}"
        self.transactions[name] = OpenTransaction(name, self.now())
        return name

    @contextmanager
    def writing_into(self, transaction: str | None) -> Iterator[None]:
        """What is written inside belongs to that transaction; None means that it is committed at once."""
        before, self._into = self._into, self.transactions[transaction] if transaction else None
        try:
            yield
        finally:
            self._into = before

    def commit(self, transaction: str) -> None:
        for row in self.transactions.pop(transaction).rows.values():
            self.put(row)

    def held_by_transaction(self, key: tuple[str, str]) -> bool:
        """Whether somebody else's open transaction wrote that row, given by object and id."""
        return any(key in other.rows for other in self.transactions.values() if other is not self._into)

    def oldest_transaction(self) -> datetime | None:
        return min((each.started_at for each in self.transactions.values()), default=None)
