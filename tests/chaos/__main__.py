"""`python -m tests.chaos`: kills the host every few seconds while people act, then checks that all has come right.

Exit code 0: it has.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from local.azurite import AzuriteError
from local.demo.world import DemoError
from local.desks import DESKS
from local.stage import Stage, StageError, interrupt_on_sigterm
from tests.chaos.scene import Scene
from tests.chaos.unrest import Unrest
from tests.chaos.verdict import Finding, come_to_rest, cut_off, findings

QUEUE_LEASE_S = 10
"""In Azure the messages of a host that died come back after ten minutes; here while there is still unrest."""
INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long people act and the host dies; default 60")
    parser.add_argument("--crm", choices=DESKS, help="only this one; default: one after the other")
    parser.add_argument("--seed", type=int, help="what people do and when the host dies, as far as time allows")
    given = parser.parse_args()
    seed = SystemRandom().randrange(10**6) if given.seed is None else given.seed
    interrupt_on_sigterm()
    directory = Path(tempfile.mkdtemp(prefix="cosell-chaos-"))
    try:
        reports = [_run(crm, given.seconds, seed, directory / crm) for crm in ([given.crm] if given.crm else DESKS)]
    except KeyboardInterrupt:
        shutil.rmtree(directory)
        return INTERRUPTED
    except (AzuriteError, StageError, DemoError) as stopped:
        print(f"seed {seed}: {stopped}\nThe logs are in {directory}")
        return 1
    if any(report.findings for report in reports):
        print(f"The logs, and what people did, are in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


@dataclass(frozen=True)
class Report:
    told: str
    findings: list[Finding]


def _run(crm: str, seconds: float, seed: int, directory: Path) -> Report:
    print(f"{DESKS[crm].label}: {seconds:g} s of unrest, seed {seed}", flush=True)
    with Stage(directory, crm=crm, queue_lease_s=QUEUE_LEASE_S) as stage:
        scene = Scene(stage)
        scene.world.registers(test=False)
        unrest = Unrest(stage, scene, seed)
        unrest.last(seconds)
        unrest.write_down(directory / "people.log")
        left_alone = time.monotonic()
        come_to_rest(unrest)
        rest_s = time.monotonic() - left_alone
        figures = _figures(unrest, rest_s)
        found = list(findings(unrest))
    report = Report(figures, found)
    print(report.told, *(f"! {finding}" for finding in found), f"{len(found)} findings\n", sep="\n", flush=True)
    return report


def _figures(unrest: Unrest, rest_s: float) -> str:
    world, scene = unrest.scene.world, unrest.scene
    events, requests = world.events(), world.requests()
    failures = scene.services.failures.list()
    reasons = ", ".join(sorted({reason for failure in failures for reason in failure.reasons}))
    lines = {
        "kills": unrest.kills,
        "acts of people": unrest.acts,
        "deals": len(unrest.people.deals),
        "referrals, Microsoft's included": len(scene.pc.referrals),
        "events": f"{len(events)} in {sum(len(event['attempts']) for event in events)} calls",
        "messages": world.messages(),
        "writes to Partner Center": requests["Partner Center writes"],
        "writes to the CRM": requests["CRM writes"],
        "writes cut off by a death": cut_off(unrest),
        "failures that wait for a person": f"{len(failures)}{f' ({reasons})' if failures else ''}",
        "seconds until all was at rest": f"{rest_s:.0f}",
    }
    return "\n".join(f"  {name + ':':<34}{value}" for name, value in lines.items())


if __name__ == "__main__":
    sys.exit(main())
