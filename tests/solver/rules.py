"""The rules by which imgbuild's answer may differ from apt's: docs/decisions/solver-rules.md has a section for each, by name.

Each is a test that says from both answers whether the rule explains the difference: it looks for the rule's own sign, and a
difference without one is a failure of the judge. What imgbuild chose has passed the other judges (apt itself takes it, dose and the
checker find nothing) before a rule is asked."""

import re

from debian import relations


class Case:
    """One request: its words, both answers, and what the base has installed: {name: Package}."""

    def __init__(self, words, ours, theirs, base):
        self.words, self.ours, self.theirs, self.base = words, ours, theirs, base


def no_patterns(c):
    """A name is a name: apt also takes regular expressions, globs, tasks and NAME/SUITE."""
    return c.ours.refused and any(re.search(r"[^a-z0-9.+:=~-]", w.split("=")[0]) for w in c.words) and \
        "is no package; write `name`" in c.ours.err


def removals_of_nothing(c):
    """[apt] remove may name what no source knows: it is not there, which was asked for. apt refuses."""
    return not c.ours.refused and c.theirs.refused and any(
        f"Unable to locate package {w[:-1]}\n" in c.theirs.err + "\n" for w in c.words if w.endswith("-"))


def vital_stays(c):
    """Essential, Protected, held and the init do not go, also where apt would let them."""
    return c.ours.refused and bool(re.search(r"which the image cannot do without|`\S+` must stay", c.ours.err)) and \
        (c.theirs.refused or bool(c.theirs.removals))


def no_foreign_architectures(c):
    """Packages of another architecture are not looked at. apt takes them from a list that has them."""
    return any(":" in name for name in c.theirs.installs) or \
        (c.ours.refused and "asks for a foreign architecture" in c.ours.err and any(":" in w for w in c.words))


def same_version_is_the_same(c):
    """What the base has in the version of the list is the list's package. apt replaces it when their relations differ."""
    return any(n in c.base and c.base[n].version == v and n not in c.ours.installs for n, v in c.theirs.installs.items())


def broken_base(c):
    """What was broken in the base before does not count. apt does nothing until it is repaired."""
    return not c.ours.refused and c.theirs.refused and "Try 'apt --fix-broken install'" in c.theirs.err


def smallest_change(c):
    """Where apt's marking leaves something broken, its problem resolver decides by scores; the search here takes a solution
    that changes less of the base."""
    if c.ours.refused or c.theirs.resolver == 0:
        return False
    if c.theirs.refused:
        return True
    ours, theirs = c.ours.removals, c.theirs.removals
    return len(ours) < len(theirs) or (len(ours) == len(theirs) and len(c.ours.installs) < len(c.theirs.installs))


def other_solution(c):
    """...or another one: it takes out something that apt keeps, and keeps something that apt takes out."""
    return not c.ours.refused and c.theirs.resolver > 0 and bool(c.theirs.removals - c.ours.removals)


def dependents_go_along(c):
    """What needs a package that is asked to go out goes with it. apt moves some of it to newer versions that do without, even where
    that breaks other things, which its resolver then sees to."""
    gone = {w[:-1] for w in c.words if w.endswith("-")}
    grows = bool(gone)
    while grows:
        more = {p.name for p in c.base.values() if p.name not in gone for f in ("pre-depends", "depends")
                for group in relations(p.get(f)) if any(a[0] in gone for a in group)}
        gone |= more
        grows = bool(more)
    only_ours = c.ours.removals - c.theirs.removals
    return not c.ours.refused and c.theirs.resolver > 0 and bool(only_ours) and only_ours <= gone


RULES = {f.__name__.replace("_", "-"): f for f in (no_patterns, removals_of_nothing, vital_stays, no_foreign_architectures,
                                                  same_version_is_the_same, broken_base, smallest_change,
                                                  other_solution, dependents_go_along)}


def find_rule(words, ours, theirs, base):
    """The name of the rule that explains how the answers differ, or None."""
    return next((name for name, holds in RULES.items() if holds(Case(words, ours, theirs, base))), None)
