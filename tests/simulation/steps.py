"""What can happen in a story, step by step. Each step makes its choices out of one number and says what it did."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest.mock import patch

from local.simulators.partner_center.signing import RECIPES
from tests.simulation.broken import Broken
from tests.simulation.chance import Pick
from tests.simulation.faults import KINDS, RARE, Fault
from tests.simulation.people import FIELDS, MOST_DEALS, Deal

if TYPE_CHECKING:
    from tests.simulation.story import Story


def _brings(create: Callable[[Story, Pick], str]) -> Callable[[Story, Pick], str]:
    def act(story: Story, pick: Pick) -> str:
        return create(story, pick) if len(story.people.deals) < MOST_DEALS else ""

    return act


def _on_a_deal(act: Callable[[Story, Deal, Pick], str]) -> Callable[[Story, Pick], str]:
    def step(story: Story, pick: Pick) -> str:
        deal = story.deal(pick)
        return act(story, deal, pick) if deal else ""

    return step


def _both_edit(story: Story, deal: Deal, pick: Pick) -> str:
    names = list(FIELDS)
    here, there = pick.of(names), pick.of(names)
    edits = [story.people.seller_edits(deal, here), story.people.partner_edits(deal, there)]
    return "; ".join(filter(None, edits))


def _create_goes_wrong(story: Story, pick: Pick) -> str:
    """A deal that a seller shares meets one of the faults that wait for a create."""
    instance, kind = (
        story.instance(pick),
        pick.of([name for name, (targets, _) in KINDS.items() if "create" in targets]),
    )
    story.cloud.faults.append(Fault(kind, pick.of((0, 1))))
    story.tell(story.people.seller_creates(help_wanted=True, shared=True))
    story.cloud.run_timer(instance, "crm_poller")
    _workers(story, Pick(story.cloud.instances.index(instance)))
    return f"({kind})"


def _create_goes_wrong_again(story: Story, pick: Pick) -> str:
    """And so does the next one, or the partner edits what came of it before anybody knows."""
    if pick.of((True, False)):
        story.cloud.faults.append(Fault("a create is under way for a minute", 1))
        return _create_goes_wrong(story, pick)
    story.tell(_create_goes_wrong(story, pick))
    return story.people.partner_edits(story.people.deals[-1], pick.of(list(FIELDS)))


def _record_goes_wrong(story: Story, pick: Pick) -> str:
    """A deal that Microsoft brings meets one of the faults that wait for a write, and its seller is quick."""
    instance, kind = story.instance(pick), pick.of([name for name, (targets, _) in KINDS.items() if "write" in targets])
    story.cloud.faults.append(Fault(kind, pick.of((0, 1, 2))))
    story.tell(story.people.microsoft_brings_a_deal())
    story.cloud.deliver(instance)
    _workers(story, Pick(story.cloud.instances.index(instance)))
    return story.people.seller_edits(story.people.deals[-1], pick.of(list(FIELDS)))


def _both_close(story: Story, deal: Deal, pick: Pick) -> str:
    """Perhaps not as the other one does: then a person has to mend it."""
    moves = [
        story.people.seller_moves(deal, pick.of(("won", "lost"))),
        story.people.partner_acts(deal, pick.of(("wins", "loses"))),
    ]
    return "; ".join(filter(None, moves))


MOMENTS = (None, None, None, 0, 1, 2, 3, 4, 5, 6, 8, 10, 13)


def _worker(story: Story, pick: Pick) -> str:
    instance = story.instance(pick)
    story.tell(f"{instance.name} takes a message")
    return "" if story.cloud.run_worker_on(instance, pick.of(MOMENTS)) else "  there is none to see"


def _workers(story: Story, pick: Pick) -> str:
    """Work off what can be seen."""
    instance = story.instance(pick)
    worked = 0
    while worked < 20 and story.cloud.run_worker_on(instance):
        worked += 1
    return f"{instance.name} worked off {worked} messages"


def _deliver(story: Story, pick: Pick) -> str:
    instance = story.instance(pick)
    story.tell(f"Partner Center calls {instance.name}")
    story.cloud.deliver(instance, pick.of(MOMENTS))
    return ""


def _timer(name: str) -> Callable[[Story, Pick], str]:
    def step(story: Story, pick: Pick) -> str:
        instance = story.instance(pick)
        story.tell(f"{name} runs on {instance.name}")
        story.cloud.run_timer(instance, name, pick.of(MOMENTS))
        return ""

    return step


def _settle(story: Story, pick: Pick) -> str:
    """A minute in which all goes its way: events arrive, the poll runs, the queue is worked off."""
    instance = story.instance(pick)
    story.tell("a quiet minute")
    story.cloud.run_timer(instance, "crm_poller")
    for _ in range(3):
        story.cloud.deliver(instance)
        _workers(story, Pick(story.cloud.instances.index(instance)))
        if story.cloud.storage.next_visible() is None:
            break
    story.cloud.advance(61)
    return ""


def _go_on(story: Story, pick: Pick) -> str:
    if not story.cloud.tasks:
        return ""
    task = pick.of(story.cloud.tasks)
    story.tell(f"the {task.label} goes on")
    story.cloud.go_on(task, pick.of(MOMENTS))
    return ""


def _meanwhile(story: Story, pick: Pick) -> str:
    """Somebody edits the deal that a run works on, and another process hears of it, before the run goes on."""
    one, other = story.cloud.instances
    before = list(story.cloud.tasks)
    if not story.people.deals or not story.cloud.run_worker_on(one, pick.of(range(3, 16))):
        return ""
    run = next((task for task in story.cloud.tasks if task not in before), None)
    if run is None:
        return ""  # it came to its end
    deal, name = pick.of(story.people.deals), pick.of(list(FIELDS))
    edit = pick.of((story.people.seller_edits, story.people.partner_edits))
    story.cloud.advance(1)  # in the second of our own write nobody could see it, see Story.take
    story.tell("meanwhile " + (edit(deal, name) or "nothing happens"))
    story.cloud.run_timer(other, "crm_poller")
    story.cloud.deliver(other)
    _workers(story, Pick(1))
    if run in story.cloud.tasks:
        story.cloud.go_on(run)
    return "and so it goes on"


def _unseen_meanwhile(story: Story, pick: Pick) -> str:
    """The same while a run has nothing to write, so that no conflict tells it of the edit."""
    if story.people.deals:
        story.tell(story.people.automation_touches(pick.of(story.people.deals)))
        story.cloud.run_timer(story.cloud.instances[0], "crm_poller")
    return _meanwhile(story, pick)


def _crash(story: Story, pick: Pick) -> str:
    story.cloud.crash(story.instance(pick))
    return ""


def _fault(story: Story, pick: Pick) -> str:
    after, kind = pick.of(range(12)), pick.of(list(KINDS))
    story.cloud.faults.append(Fault(kind, after % 3 if KINDS[kind][0] <= RARE else after))
    return f"(soon: {kind})"


def _outage(story: Story, pick: Pick) -> str:
    story.cloud.outage = not story.cloud.outage
    if story.cloud.outage:
        story.cloud.injected["Storage is out"] += 1
    return "Storage is " + ("out" if story.cloud.outage else "back")


def _rights(story: Story, pick: Pick) -> str:
    """An admin takes away the product's rights in one system, or gives them back: a person has to replay then."""
    cloud = story.cloud
    if cloud.no_rights:
        given, cloud.no_rights = cloud.no_rights, ""
        return f"{given} grants rights again"
    cloud.no_rights = pick.of(("partner_center", "dataverse" if story.crm == "dynamics365" else "salesforce"))
    cloud.injected["rights are taken away"] += 1
    return f"{cloud.no_rights} grants no rights any more"


def _mass_delete(story: Story, pick: Pick) -> str:
    return "; ".join(filter(None, (story.people.seller_deletes(deal) for deal in list(story.people.deals))))


def _event_lost(story: Story, pick: Pick) -> str:
    waiting = story.cloud.simulators.webhooks.dispatcher.waiting
    ready = [delivery for delivery in waiting if delivery.state == "waiting"]
    if not ready:
        return ""
    waiting.remove(pick.of(ready))
    story.cloud.injected["an event is lost"] += 1
    return "an event is lost"


def _event_doubled(story: Story, pick: Pick) -> str:
    dispatcher = story.cloud.simulators.webhooks.dispatcher
    known = [*dispatcher.finished, *dispatcher.waiting]
    if not known:
        return ""
    dispatcher.queue(pick.of(known).payload)
    story.cloud.injected["an event comes again"] += 1
    return "an event comes again"


def _event_late(story: Story, pick: Pick) -> str:
    waiting = [d for d in story.cloud.simulators.webhooks.dispatcher.waiting if d.state == "waiting"]
    if not waiting:
        return ""
    pick.of(waiting).due_at += timedelta(hours=pick.of((1, 6, 48)))
    story.cloud.injected["an event is late"] += 1
    return "an event is late"


def _unheard(story: Story, deal: Deal, pick: Pick) -> str:
    """An edit of which no event tells, so that only the sweep can; newer ones follow.

    Either the sweep dies on the way, or the list does not show the edit yet when the sweep reads it.
    """
    cloud, people = story.cloud, story.people
    first, own = cloud.instances[0], people.referral(deal)
    edits = [people.partner_edits(deal, pick.of(list(FIELDS)))]
    if own is None or not edits[0]:
        return ""
    waiting, visible_to = cloud.simulators.webhooks.dispatcher.waiting, cloud.pc.visible_to
    waiting[:] = [each for each in waiting if each.state != "waiting" or own["id"] not in str(each.payload)]
    cloud.advance(1)
    edits += [people.partner_edits(other, "deal_value") for other in people.deals if other is not deal]
    said = "; ".join(filter(None, edits)) + f"; no event tells of {deal}"
    if moments := pick.of((None, 2, 3, 4, 5)):
        cloud.run_timer(first, "reconciler", moments)
        cloud.crash(first)
        cloud.injected["the sweep dies"] += 1
        return said
    with patch.object(cloud.pc, "visible_to", lambda caller: [row for row in visible_to(caller) if row is not own]):
        cloud.run_timer(first, "reconciler")
    cloud.injected["an edit shows late"] += 1
    return said + ", and it shows late"


def _shuffled(story: Story, pick: Pick) -> str:
    order = random.Random(pick.of(range(1000)))
    waiting = story.cloud.simulators.webhooks.dispatcher.waiting
    order.shuffle(waiting)
    story.cloud.storage.shuffle(order)
    story.cloud.injected["another order"] += 1
    return "events and messages change their order"


FORGERIES = [name for name, recipe in RECIPES.items() if recipe.acceptable is False and "slow" not in name]


FORGERS = 8
"""Each has every eighth of the forgeries."""


def _forged(story: Story, pick: Pick) -> str:
    dispatcher = story.cloud.simulators.webhooks.dispatcher
    known = [*dispatcher.finished, *dispatcher.waiting]
    if not known:
        return ""
    payload, first = pick.of(known).payload, pick.of(range(FORGERS))
    story.cloud.receiver.instance = story.instance(pick)
    for recipe in FORGERIES[first::FORGERS]:
        sent = story.cloud.storage.sent
        attempt = dispatcher.send(payload, recipe)
        if attempt.succeeded or story.cloud.storage.sent > sent:
            raise Broken("I2", f"a forged call ({recipe}) was answered with {attempt.status}")
        story.cloud.injected["a forged call"] += 1
    return f"forged calls ({', '.join(FORGERIES[first::FORGERS])})"


def _feed_expires(story: Story, pick: Pick) -> str:
    """The change feed's bookmark is no longer good. Salesforce has none: there, the cursor gets lost."""
    cloud = story.cloud
    if story.crm == "dynamics365":
        cloud.crm.people.expire_delta_tokens("opportunity")
        cloud.crm.people.expire_delta_tokens("lead")
    else:
        cloud.tables.table(f"{cloud.name}Cursors").delete("cursor", f"crm-{cloud.desk.opportunity}")
    cloud.injected["the change feed starts over"] += 1
    return "the change feed's bookmark is lost"


def _time(seconds: Sequence[float]) -> Callable[[Story, Pick], str]:
    def step(story: Story, pick: Pick) -> str:
        gone = pick.of(seconds)
        story.cloud.advance(gone)
        return f"{gone:g} s pass"

    return step


@dataclass(frozen=True)
class Kind:
    """`weight`: how often a generator takes this step, beside the others."""

    weight: int
    do: Callable[[Story, Pick], str]
    acts: int = 0
    """How many acts of people it is."""


STEPS: Mapping[str, Kind] = {
    "seller creates": Kind(
        6,
        _brings(
            lambda s, p: s.people.seller_creates(
                help_wanted=p.of((True, False)), shared=p.of((True, True, True, False))
            )
        ),
        acts=1,
    ),
    "a create goes wrong": Kind(3, _brings(_create_goes_wrong), acts=1),
    "Microsoft brings a deal": Kind(4, _brings(lambda s, p: s.people.microsoft_brings_a_deal()), acts=1),
    "a create goes wrong again": Kind(2, _brings(_create_goes_wrong_again), acts=2),
    "a record goes wrong": Kind(2, _brings(_record_goes_wrong), acts=2),
    "customer asks": Kind(3, _brings(lambda s, p: s.people.customer_asks()), acts=1),
    "seller edits": Kind(12, _on_a_deal(lambda s, d, p: s.people.seller_edits(d, p.of(list(FIELDS)))), acts=1),
    "seller takes back": Kind(
        2, _on_a_deal(lambda s, d, p: s.people.seller_edits(d, p.of(list(FIELDS)), take_back=True)), acts=1
    ),
    "seller moves": Kind(
        6, _on_a_deal(lambda s, d, p: s.people.seller_moves(d, p.of(("open", "on_hold", "won", "lost")))), acts=1
    ),
    "seller flips the flag": Kind(2, _on_a_deal(lambda s, d, p: s.people.seller_flips_the_flag(d)), acts=1),
    "seller asks for help": Kind(2, _on_a_deal(lambda s, d, p: s.people.seller_asks_for_help(d)), acts=1),
    "seller deletes": Kind(1, _on_a_deal(lambda s, d, p: s.people.seller_deletes(d)), acts=1),
    "everything is deleted": Kind(1, _mass_delete, acts=MOST_DEALS),
    "seller answers a lead": Kind(
        3, _on_a_deal(lambda s, d, p: s.people.seller_answers_the_lead(d, qualify=p.of((True, False)))), acts=1
    ),
    "automation touches": Kind(2, _on_a_deal(lambda s, d, p: s.people.automation_touches(d)), acts=1),
    "partner edits": Kind(12, _on_a_deal(lambda s, d, p: s.people.partner_edits(d, p.of(list(FIELDS)))), acts=1),
    "partner takes back": Kind(
        2, _on_a_deal(lambda s, d, p: s.people.partner_edits(d, p.of(list(FIELDS)), take_back=True)), acts=1
    ),
    "partner acts": Kind(
        6,
        _on_a_deal(lambda s, d, p: s.people.partner_acts(d, p.of(("accepts", "views", "wins", "loses", "declines")))),
        acts=1,
    ),
    "Microsoft acts": Kind(
        4, _on_a_deal(lambda s, d, p: s.people.microsoft_acts(d, p.of(("accepts", "edits", "declines")))), acts=1
    ),
    "seller edits at length": Kind(1, _on_a_deal(lambda s, d, p: s.people.seller_edits_at_length(d)), acts=1),
    "long edits end": Kind(2, lambda s, p: s.people.long_edits_end()),
    "a referral is hidden or shown": Kind(
        1, _on_a_deal(lambda s, d, p: s.people.referral_is_hidden_or_shown(d)), acts=1
    ),
    "both edit": Kind(8, _on_a_deal(_both_edit), acts=2),
    "both close": Kind(3, _on_a_deal(_both_close), acts=2),
    "time to answer runs out": Kind(1, lambda s, p: s.people.time_to_answer_runs_out(), acts=MOST_DEALS),
    "events arrive": Kind(14, _deliver),
    "poll": Kind(12, _timer("crm_poller")),
    "sweep": Kind(5, _timer("reconciler")),
    "registration is checked": Kind(1, _timer("check_registration")),
    "full sweep": Kind(1, _timer("nightly_sweep")),
    "a worker": Kind(24, _worker),
    "workers": Kind(6, _workers),
    "a quiet minute": Kind(6, _settle),
    "a run goes on": Kind(14, _go_on),
    "an edit meanwhile": Kind(8, _meanwhile, acts=1),
    "an edit that meets no write": Kind(4, _unseen_meanwhile, acts=2),
    "a process dies": Kind(3, _crash),
    "a fault": Kind(14, _fault),
    "Storage goes or comes": Kind(2, _outage),
    "rights go or come": Kind(1, _rights),
    "an event is lost": Kind(3, _event_lost),
    "an event comes again": Kind(3, _event_doubled),
    "an event is late": Kind(2, _event_late),
    "an edit is unheard of": Kind(4, _on_a_deal(_unheard), acts=MOST_DEALS),
    "another order": Kind(2, _shuffled),
    "forged calls": Kind(2, _forged),
    "the feed starts over": Kind(1, _feed_expires),
    "seconds pass": Kind(6, _time((1, 5, 31))),
    "minutes pass": Kind(6, _time((61, 130, 310))),
    "hours pass": Kind(1, _time((3_700, 90_000))),
}
