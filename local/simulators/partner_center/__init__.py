"""Simulated Partner Center, in memory: the referrals API, the webhooks that go with it, and the people on both sides.

referrals.py     the Referrals API                webhooks.py      the registration API, events out
schema.py        the referral, legal states       dispatcher.py    attempts, back-off, offline list
query.py         $filter, $orderby                signing.py       signed calls, and forged ones
people.py        the partner's and Microsoft's    certificates.py  the host of the signing certificate
"""

from local.simulators.partner_center.certificates import CertificateHost
from local.simulators.partner_center.people import People
from local.simulators.partner_center.referrals import Account, ReferralsSimulator, Rules
from local.simulators.partner_center.signing import RECIPES, Recipe
from local.simulators.partner_center.webhooks import WebhooksSimulator

__all__ = [
    "RECIPES",
    "Account",
    "CertificateHost",
    "People",
    "Recipe",
    "ReferralsSimulator",
    "Rules",
    "WebhooksSimulator",
]
