"""Simulated Salesforce: one org with its OAuth endpoint, REST API and a little of its Tooling API, in memory.

schema.py        objects and fields     fields.py      records' objects         setup_objects.py  users, stages, ...
organization.py  rows, every write      newborn.py     a new org's rows         ids.py            15, 18 characters
rules.py         what a save obeys      behaviours.py  what a save sets off     geography.py      states, countries
access.py        who may see what       payload.py     JSON to values and back  protocol.py       one call
soql.py          text to a tree         filters.py     WHERE and ORDER BY       query.py          results in pages
records.py       rows over HTTP         conditions.py  If-Unmodified-Since      replication.py    /updated, /deleted
collection.py    many rows at once      composite.py   calls in one call        describe.py       what an object is
tooling.py       custom fields          oauth.py       tokens                   people.py         users, admins, flows
resources.py     which part answers     simulator.py   the web application      errors.py         every refusal
"""

from local.simulators.salesforce.simulator import DEFAULT_ORIGIN, SalesforceSimulator

__all__ = ["DEFAULT_ORIGIN", "SalesforceSimulator"]
