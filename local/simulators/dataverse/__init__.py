"""Simulated Dataverse Web API v9.2: an organization with the tables of Dynamics 365 Sales, in memory.

schema.py        tables and columns          organization.py  rows, and the rules of every write
addresses.py     paths and keys              payload.py       JSON to typed values, or a refusal
query.py         $filter, $select, ...       tracking.py      pages, delta links
records.py       rows over HTTP              actions.py       win, lose, qualify, bulk, publish
metadata.py      definitions                 batch.py         $batch
people.py        users, plug-ins, admins     errors.py        every refusal
"""

from local.simulators.dataverse.simulator import DEFAULT_ORIGIN, DataverseSimulator

__all__ = ["DEFAULT_ORIGIN", "DataverseSimulator"]
