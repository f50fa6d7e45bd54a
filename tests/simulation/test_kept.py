"""Stories that once broke something, shortened, each with what was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.app import functions
from tests.simulation.story import SKEWS, Step, tell


@dataclass(frozen=True)
class Kept:
    crm: str
    steps: Sequence[Step]
    skews: int = 0


KEPT = {
    "Microsoft was invited to a deal that was being closed": Kept(
        "dynamics365",
        [
            Step("seller creates", 796041745),
            Step("poll", 662461829),
            Step("a worker", 186948791),
            Step("seller asks for help", 857828890),
            Step("seller moves", 970348334),
        ],
    ),
    "an invitation that the seller held back never ended": Kept(
        "salesforce",
        [
            Step("Microsoft brings a deal", 912989300),
            Step("full sweep", 593099174),
            Step("seller creates", 653712902),
            Step("sweep", 274745844),
            Step("a quiet minute", 418729951),
            Step("seller creates", 56881888),
            Step("seller edits", 660986424),
            Step("a run goes on", 314650428),
            Step("a worker", 231404876),
            Step("a worker", 591960378),
            Step("seller flips the flag", 37991753),
            Step("minutes pass", 469247371),
            Step("a quiet minute", 247902604),
        ],
    ),
    "whether Microsoft had brought a deal depended on whether its referral had been read": Kept(
        "dynamics365",
        [
            Step("customer asks", 87145047),
            Step("a quiet minute", 456791494),
            Step("seller answers a lead", 678620616),
            Step("seller asks for help", 92362080),
            Step("a quiet minute", 409161680),
            Step("partner edits", 161533746),
        ],
    ),
    "an edit made while Microsoft's invitation went wrong gave way to an older value": Kept(
        "dynamics365",
        [
            Step("a create goes wrong", 265403231),
            Step("both edit", 124286361),
        ],
    ),
    "nobody was told what came of a create when the record was deleted meanwhile": Kept(
        "dynamics365",
        [
            Step("a create goes wrong", 934284420),
            Step("seller deletes", 534066599),
        ],
    ),
    "nobody was told what came of an invitation when the record was deleted meanwhile": Kept(
        "dynamics365",
        [
            Step("a create goes wrong", 689825039),
            Step("seller deletes", 685301247),
        ],
    ),
    "Microsoft was invited to a deal that was won meanwhile, and the win came to nobody": Kept(
        "dynamics365",
        [
            Step("seller creates", 808473313),
            Step("a quiet minute", 376245295),
            Step("a create goes wrong", 645838717),
            Step("minutes pass", 225297121),
            Step("partner acts", 165244025),
        ],
    ),
    "a referral made by a run that died was edited, and the record's older value won for want of a base": Kept(
        "dynamics365",
        [
            Step("a create goes wrong", 681854584),
            Step("a fault", 788495317),
            Step("a fault", 724068240),
            Step("sweep", 721162930),
            Step("an edit is unheard of", 298886430),
            Step("a quiet minute", 588995938),
        ],
        skews=2,
    ),
    "a run that died had made a record, and its referral was closed before the next one looked": Kept(
        "dynamics365",
        [
            Step("Microsoft brings a deal", 589348590),
            Step("a quiet minute", 487471335),
            Step("a record goes wrong", 852567619),
            Step("partner acts", 144739229),
        ],
        skews=2,
    ),
    "a record was written without being read, over and over, because its referral was not shown": Kept(
        "dynamics365",
        [
            Step("customer asks", 757555905),
            Step("a record goes wrong", 713273971),
            Step("a create goes wrong", 421472061),
            Step("a quiet minute", 227582635),
            Step("a worker", 364015725),
            Step("rights go or come", 951008758),
            Step("a referral is hidden or shown", 574689233),
            Step("a worker", 149793014),
            Step("both close", 912391190),
        ],
    ),
    "a record was made, could not be read for want of a right, and counted as not made": Kept(
        "dynamics365",
        [
            Step("a record goes wrong", 302746557),
            Step("everything is deleted", 995453523),
            Step("poll", 165107555),
            Step("a record goes wrong", 647964506),
            Step("a fault", 545592631),
            Step("Microsoft acts", 187555338),
            Step("events arrive", 128238673),
            Step("an edit meanwhile", 6380037),
            Step("a fault", 950425702),
            Step("a quiet minute", 921029786),
        ],
    ),
    "a referral went while its record was written, and nobody was told what came of that": Kept(
        "dynamics365",
        [
            Step("customer asks", 860846573),
            Step("a quiet minute", 292740418),
            Step("partner edits", 348653979),
            Step("sweep", 616043051),
            Step("a referral is hidden or shown", 264443867),
            Step("a run goes on", 568736396),
            Step("a create goes wrong", 821188052),
            Step("hours pass", 910061092),
            Step("a worker", 439879338),
            Step("a fault", 290515407),
            Step("a quiet minute", 510709392),
        ],
        skews=1,
    ),
    "a second invitation without an answer was taken for the first, and a third one was sent": Kept(
        "dynamics365",
        [
            Step("poll", 620871881),
            Step("a fault", 886331189),
            Step("a create goes wrong", 289656911),
            Step("minutes pass", 850357093),
            Step("a worker", 63664642),
        ],
        skews=2,
    ),
    "the partner entered a value over ours, which a run that died had written with another one": Kept(
        "dynamics365",
        [
            Step("seller creates", 267111483),
            Step("a quiet minute", 286705403),
            Step("partner edits", 525964213),
            Step("both edit", 66615976),
            Step("a fault", 682005382),
            Step("both edit", 870646118),
            Step("seller creates", 739197590),
            Step("a quiet minute", 514217365),
            Step("partner takes back", 244336010),
        ],
        skews=1,
    ),
    "what a run had read before it got the deal was older than what another one had seen": Kept(
        "dynamics365",
        [
            Step("rights go or come", 788991635),
            Step("customer asks", 337521882),
            Step("Microsoft brings a deal", 5134295),
            Step("sweep", 692111861),
            Step("a worker", 497325899),
            Step("a worker", 876603561),
            Step("an edit is unheard of", 838893424),
            Step("a quiet minute", 859387535),
        ],
        skews=1,
    ),
}


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_what_was_mended_stays_mended(kept: Kept) -> None:
    told = tell(functions(), kept.crm, kept.steps, skews=SKEWS[kept.skews])

    assert told.broken is None, str(told)
