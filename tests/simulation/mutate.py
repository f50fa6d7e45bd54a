"""The negative control: puts one known bug after another into the product and tells stories until one of them is found.

    python -m tests.simulation.mutate                           all bugs of tests/simulation/mutants/, and a table
    python -m tests.simulation.mutate blind-repost --show       these only; with the story that found the bug

A bug is a patch against the root of the repository; its first line says what is wrong, a line `CRM: name` before the
diff that it is about this CRM alone. Each is put into a copy of the tree, where the same stories are told as here. A
story that breaks without any bug counts for none, and is reported.
https://en.wikipedia.org/wiki/Mutation_testing
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter

from tests.flows.crms import CRMS
from tests.simulation.soak import lot, story

ROOT = Path(__file__).parents[2]
MUTANTS = Path(__file__).parent / "mutants"
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "node_modules", "__pycache__", ".*_cache")
STORIES = 400
"""For each CRM, at most. That many the tree as it is has to pass."""


@dataclass(frozen=True)
class Mutant:
    """A bug. `crms`: where it can show."""

    slug: str
    bug: str
    patch: str
    crms: tuple[str, ...]

    @classmethod
    def of(cls, file: Path) -> Mutant:
        text = file.read_text()
        words, found, _ = text.partition("\n--- a/")
        if not found:
            raise SystemExit(f"{file}: there is no diff in it (`--- a/<file>`)")
        only = re.search(r"^CRM: (.+)$", words, re.MULTILINE)
        if only and only[1] not in CRMS:
            raise SystemExit(f"{file}: CRM {only[1]} is none of {', '.join(CRMS)}")
        return cls(file.stem, words.splitlines()[0], text, (only[1],) if only else CRMS)


@dataclass(frozen=True)
class Finding:
    """The first story, of those that were told, which broke something. `invariant`: "" when there was none."""

    stories: int
    crm: str = ""
    seed: int = 0
    invariant: str = ""
    words: str = ""


_FINDING = TypeAdapter(Finding)


def hunt(crms: Sequence[str], stories: int, known: frozenset[tuple[str, int]]) -> Finding:
    """Tell stories of each CRM in turn until one breaks; `known` are those that are not counted, by CRM and seed."""
    told = 0
    for seed in range(stories):
        for crm in crms:
            told += 1
            broken = story(crm, seed).broken
            if broken and (crm, seed) not in known:
                return Finding(told, crm, seed, broken.invariant, str(broken))
    return Finding(told)


# ---------------------------------------------------------------- in a copy


def apply(mutant: Mutant, tree: Path, *options: str) -> None:
    """Put the bug into a tree. Raises SystemExit when the tree does not have the lines that the patch is about."""
    applied = subprocess.run(
        ["git", "apply", *options, "-"],
        cwd=tree,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)},
        input=mutant.patch,
        capture_output=True,
        text=True,
        check=False,
    )
    if applied.returncode:
        raise SystemExit(f"{mutant.slug}.patch does not apply any more, make it anew: {applied.stderr.strip()}")


@contextmanager
def mutated(mutant: Mutant) -> Iterator[Path]:
    """A copy of the tree with the bug in it."""
    with TemporaryDirectory(prefix=f"{mutant.slug}-") as place:
        tree = Path(place) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        apply(mutant, tree)
        yield tree


def caught(mutant: Mutant, stories: int, known: frozenset[tuple[str, int]]) -> Finding:
    """Hunt the bug, in a process of its own. Raises SystemExit when the stories cannot be told with it."""
    left_out = [f"--known={crm}:{seed}" for crm, seed in sorted(known)]
    with mutated(mutant) as tree:
        return _FINDING.validate_json(
            _python(
                tree, mutant.slug, "tests.simulation.mutate", "--hunt", *mutant.crms, f"--stories={stories}", *left_out
            )
        )


def story_of(mutant: Mutant, finding: Finding) -> str:
    with mutated(mutant) as tree:
        which = (f"--crm={finding.crm}", f"--seed={finding.seed}", "--shorten")
        return _python(tree, mutant.slug, "tests.simulation.soak", *which)


def _python(tree: Path, slug: str, module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    ran = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if not ran.stdout:
        raise SystemExit(f"with {slug}.patch no story can be told: {ran.stderr}")
    return ran.stdout


# ---------------------------------------------------------------- all of them


def control(stories: int, cores: int) -> frozenset[tuple[str, int]]:
    """Tell the same stories in the tree as it is; return those that break something."""
    size = 20
    with ProcessPoolExecutor(cores) as pool:
        lots = [
            pool.submit(lot, crm, first, min(size, stories - first))
            for first in range(0, stories, size)
            for crm in CRMS
        ]
        findings = [finding for each in lots for finding in each.result().findings]
    for crm, seed, words in findings:
        print(f"without any bug put in, {crm} seed {seed}: {words}")
    return frozenset((crm, seed) for crm, seed, _ in findings)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutate", description=__doc__)
    parser.add_argument("slugs", nargs="*", help="default: all")
    parser.add_argument("--stories", type=int, default=STORIES, help=f"for each CRM, at most (default: {STORIES})")
    parser.add_argument("--show", action="store_true", help="print the story that found each bug, shortened")
    parser.add_argument("--unchecked", action="store_true", help="do not tell the stories in the tree as it is first")
    parser.add_argument("--hunt", nargs="+", choices=CRMS, help=argparse.SUPPRESS)
    parser.add_argument("--known", action="append", default=[], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hunt:
        known = frozenset((crm, int(seed)) for crm, seed in (each.split(":") for each in given.known))
        print(_FINDING.dump_json(hunt(given.hunt, given.stories, known)).decode())
        return 0
    files = [MUTANTS / f"{slug}.patch" for slug in given.slugs] or sorted(MUTANTS.glob("*.patch"))
    mutants, cores = [Mutant.of(file) for file in files], os.cpu_count() or 1
    known = frozenset() if given.unchecked else control(given.stories, cores)
    row = "{:32}  {:3}  {:12} {:>5} {:>8}  {}".format
    print(row("bug", "by", "CRM", "seed", "stories", "what is wrong"), flush=True)
    survivors = 0
    with ThreadPoolExecutor(cores) as pool:
        for mutant, finding in zip(
            mutants, pool.map(lambda each: caught(each, given.stories, known), mutants), strict=True
        ):
            survivors += not finding.invariant
            where = (finding.invariant, finding.crm, finding.seed) if finding.invariant else ("-", "SURVIVES", "")
            print(row(mutant.slug, *where, finding.stories, mutant.bug), flush=True)
            if given.show and finding.invariant:
                print(story_of(mutant, finding))
    print(f"{len(mutants) - survivors} of {len(mutants)} bugs caught")
    return int(bool(survivors or known))


if __name__ == "__main__":
    sys.exit(main())
