"""What a seller can do in any CRM. Names fields as the shipped field maps do; a subclass knows the CRM's own names.

Of an opportunity: name, deal_value, currency (ISO code), close_date, notes, solutions, help (Partner Center's code),
visibility, sync_flag, account, contact, owner (ids), lead (the one it was made of), and what only the product writes:
referral_id, referral_link, audit, sync_status, microsoft_crm_id, microsoft_status, microsoft_sellers. Of a lead: those
of these that it has, and customer_name, contact_first_name, contact_last_name, contact_email, contact_phone, street,
city, postal_code, country. Of an account: name, street, city, state, postal_code, country. Of a contact: first_name,
last_name, phone, email, account. A row that is shown has its `id` too; an opportunity or lead its `state`: on_hold,
open, won or lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from uuid import uuid4

Row = dict[str, Any]
Act = Callable[..., Any]
"""Lets people of the CRM's simulator act: called with the action's name and its arguments by name."""
Show = Callable[[], Mapping[str, Any]]
"""Returns everything the CRM's simulator holds."""

CUSTOMER = {
    "street": "1 Example Way",
    "city": "Redmond",
    "state": "WA",
    "postal_code": "98052",
    "country": "US",
}


class Desk(ABC):
    """`crm` is what the setting CRM calls it, `label` what people do; `opportunity` and `lead` are its own names.

    `fields` has its own name of every plain field, by kind of row; `help_choices` its own value of every kind of help.
    """

    crm: ClassVar[str]
    label: ClassVar[str]
    opportunity: ClassVar[str]
    lead: ClassVar[str]
    address_in: ClassVar[str]
    """The app setting that holds the CRM's address."""
    opportunities_in: ClassVar[str]
    """Where the simulator's state shows the opportunities."""
    fields: ClassVar[Mapping[str, Mapping[str, str]]]
    help_choices: ClassVar[Mapping[str, Any]]

    def __init__(self, act: Act, show: Show) -> None:
        self.act = act
        self.show = show

    # ------------------------------------------------------------ doing

    def create_account(self, **values: Any) -> str:
        """Create a customer that is complete enough for Partner Center; `values` change or clear (None) fields."""
        return self._create("account", {"name": f"Contoso {uuid4().hex[:6]}", **CUSTOMER, **values})

    def create_contact(self, account: str, **values: Any) -> str:
        """Create somebody whom Microsoft can reach."""
        person = {"first_name": "Sue", "last_name": "Smith", "phone": "1234567890"}
        email = f"sue{uuid4().hex[:6]}@contoso.example"
        return self._create("contact", {**person, "email": email, "account": account, **values})

    def create_opportunity(self, **values: Any) -> str:
        """Create an opportunity that is complete enough to be shared, and share it; with a customer of its own."""
        account = values["account"] if "account" in values else self.create_account()
        contact = values["contact"] if "contact" in values else self.create_contact(account)
        complete = {
            "name": "Contoso - data platform",
            "notes": "Migration assessment done.",
            "deal_value": 50000,
            "currency": "USD",
            "close_date": "2027-03-31",
            "solutions": "SOL-15974-MQF",
            "sync_flag": True,
        }
        return self._create("opportunity", {**complete, **values, "account": account, "contact": contact})

    def create_lead(self, **values: Any) -> str:
        return self._create("lead", {"customer_name": "Litware", "contact_last_name": "Smith", **values})

    def edit(self, record_id: str, **values: Any) -> None:
        """Change an opportunity."""
        self._edit("opportunity", record_id, values)

    def edit_lead(self, lead_id: str, **values: Any) -> None:
        self._edit("lead", lead_id, values)

    def edit_account(self, account_id: str, **values: Any) -> None:
        self._edit("account", account_id, values)

    def edit_contact(self, contact_id: str, **values: Any) -> None:
        self._edit("contact", contact_id, values)

    def hold(self, record_id: str) -> None:
        """Put an opportunity where deals wait that nobody has taken on."""
        self._move(record_id, "on_hold")

    def take_on(self, record_id: str) -> None:
        """Take an opportunity off hold, or reopen it."""
        self._move(record_id, "open")

    @abstractmethod
    def win(self, record_id: str) -> None: ...

    @abstractmethod
    def lose(self, record_id: str) -> None: ...

    @abstractmethod
    def qualify(self, lead_id: str) -> str:
        """Make an opportunity of a lead, as the CRM's own button does; returns its id."""

    @abstractmethod
    def disqualify(self, lead_id: str) -> None:
        """Close a lead that leads to nothing."""

    @abstractmethod
    def save_again(self, record_id: str) -> None:
        """Change something of an opportunity that no field map names."""

    @abstractmethod
    def delete(self, record_id: str) -> None:
        """Delete an opportunity."""

    @abstractmethod
    def delete_lead(self, lead_id: str) -> None: ...

    @abstractmethod
    def add_seller(self, first_name: str, last_name: str, email: str, phone: str) -> str:
        """Somebody joins the sales team; returns the user's id."""

    # ------------------------------------------------------------ looking

    @abstractmethod
    def seller(self) -> str:
        """Return the id of the user who does all this."""

    def opportunities(self) -> list[Row]:
        return self._rows("opportunity")

    def leads(self) -> list[Row]:
        return self._rows("lead")

    def accounts(self) -> list[Row]:
        return self._rows("account")

    def contacts(self) -> list[Row]:
        return self._rows("contact")

    # ------------------------------------------------------------ how the CRM has it

    @abstractmethod
    def _create(self, kind: str, values: Mapping[str, Any]) -> str:
        """`kind`: account, contact, opportunity or lead."""

    @abstractmethod
    def _edit(self, kind: str, row_id: str, values: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _move(self, record_id: str, state: str) -> None: ...

    @abstractmethod
    def _rows(self, kind: str) -> list[Row]: ...
