"""What an object and a field are, with the flags a describe shows. Holds no rows and no list of objects.

https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_describesobjects_describesobjectresult.htm
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a field holds; the value is its `type` in a describe."""

    ID = "id"
    STRING = "string"
    TEXTAREA = "textarea"
    PICKLIST = "picklist"
    MULTIPICKLIST = "multipicklist"
    REFERENCE = "reference"
    BOOLEAN = "boolean"
    CURRENCY = "currency"
    PERCENT = "percent"
    DOUBLE = "double"
    INT = "int"
    DATE = "date"
    DATETIME = "datetime"
    EMAIL = "email"
    PHONE = "phone"
    URL = "url"
    ADDRESS = "address"
    COMPLEX = "complexvalue"


DECIMALS = frozenset({Kind.CURRENCY, Kind.PERCENT, Kind.DOUBLE})
NUMBERS = DECIMALS | {Kind.INT}
IDS = frozenset({Kind.ID, Kind.REFERENCE})
PICKLISTS = frozenset({Kind.PICKLIST, Kind.MULTIPICKLIST})
TEXTS = frozenset({Kind.STRING, Kind.TEXTAREA, Kind.EMAIL, Kind.PHONE, Kind.URL, *PICKLISTS})
LONGEST_FILTERABLE_TEXT_AREA = 255


@dataclass(frozen=True)
class Field:
    name: str
    kind: Kind
    label: str = ""
    length: int = 0
    precision: int = 0
    scale: int = 0
    required: bool = False  # an error when it is left empty
    create: bool = True
    update: bool = True
    defaulted: bool = False
    default: Any = None
    values: tuple[str, ...] = ()
    restricted: bool = False
    targets: tuple[str, ...] = ()
    relation: str | None = None  # the name under which SOQL and lookups by external id reach the parent
    external_id: bool = False
    unique: bool = False
    id_lookup: bool = False
    permissionable: bool = True
    custom: bool = False
    needs: str | None = None  # the switch of the organization without which the field does not exist
    parts: dict[str, str] = field(default_factory=dict, hash=False)  # of a compound field: key -> field
    metadata_id: str = ""

    @property
    def nillable(self) -> bool:
        return not self.required and self.kind not in (Kind.BOOLEAN, Kind.ID)

    @property
    def filterable(self) -> bool:
        too_long = self.kind is Kind.TEXTAREA and self.length > LONGEST_FILTERABLE_TEXT_AREA
        return not too_long and self.kind not in (Kind.ADDRESS, Kind.COMPLEX)

    @property
    def sortable(self) -> bool:
        return self.filterable and self.kind is not Kind.MULTIPICKLIST


@dataclass
class SObject:
    name: str
    prefix: str
    fields: dict[str, Field]
    label: str = ""
    plural: str = ""
    create: bool = True
    update: bool = True
    delete: bool = True
    replicates: bool = False  # answers /updated and /deleted
    recycled: bool = True  # a deleted row waits in the Recycle Bin
    needs: str | None = None
    children: dict[str, tuple[str, str]] = field(default_factory=dict)  # relationship -> (object, its field)
    tooling: bool = False
    virtual: bool = False  # has no rows of its own and no address

    def __post_init__(self) -> None:
        self.label = self.label or label_of(self.name)
        self.plural = self.plural or f"{self.label}s"
        self._canonical: dict[str, str] = {}
        self._lookups: dict[str, str] = {}
        for each in list(self.fields.values()):
            self.adopt(each)

    def adopt(self, new: Field) -> None:
        """Add a field, or replace the one of that name."""
        self.fields[new.name] = new
        self._canonical[new.name.lower()] = new.name
        if new.kind is Kind.REFERENCE and new.relation:
            self._lookups[new.relation.lower()] = new.name

    def find(self, name: str) -> Field | None:
        """The field of that name in any case; None when there is none. Who may see it is not asked here."""
        canonical = self._canonical.get(name.lower())
        return self.fields[canonical] if canonical else None

    def lookup(self, relation: str) -> Field | None:
        """The lookup that goes by this relationship, in any case; None when there is none."""
        name = self._lookups.get(relation.lower())
        return self.fields[name] if name else None


def label_of(name: str) -> str:
    """AccountId -> Account ID, Referral_Link__c -> Referral Link."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.removesuffix("__c")).replace("_", " ")
    return re.sub(r"\bId$", "ID", words)
