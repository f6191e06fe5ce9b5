"""Debian's package metadata and its rules for the solver's judges: once more, and on purpose nothing of imgbuild's."""

import re
import subprocess
import sys


def run(argv, **kw):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, **kw)


def must(argv):
    r = run(argv)
    if r.returncode != 0:
        sys.exit(f"judge: {' '.join(argv)}: {r.stderr}")
    return r


# Versions: deb-version(7).

def order(c):
    return -1 if c == "~" else 0 if c == "" or c.isdigit() else ord(c) if c.isalpha() else ord(c) + 256


def compare_part(a, b):
    i = k = 0
    while i < len(a) or k < len(b):
        while (i < len(a) and not a[i].isdigit()) or (k < len(b) and not b[k].isdigit()):
            x, y = order(a[i:i + 1]), order(b[k:k + 1])
            if x != y:
                return x - y
            i, k = i + 1, k + 1
        x = re.match(r"\d*", a[i:]).group()
        y = re.match(r"\d*", b[k:]).group()
        if int(x or 0) != int(y or 0):
            return int(x or 0) - int(y or 0)
        i, k = i + len(x), k + len(y)
    return 0


def split_version(v):
    epoch, colon, rest = v.partition(":")
    if not colon:
        epoch, rest = "0", v
    upstream, dash, revision = rest.rpartition("-")
    return (int(epoch), upstream, revision) if dash else (int(epoch), rest, "")


def compare_versions(a, b):
    x, y = split_version(a), split_version(b)
    return x[0] - y[0] or compare_part(x[1], y[1]) or compare_part(x[2], y[2])


def version_is(version, op, wanted):
    c = compare_versions(version, wanted)
    return {"<<": c < 0, "<=": c <= 0, "<": c <= 0, "=": c == 0, ">=": c >= 0, ">": c >= 0, ">>": c > 0}[op]


RELATION = re.compile(r"\s*([a-zA-Z0-9.+-]+)(?::([a-z0-9-]+))?\s*(?:\(\s*(<<|<=|=|>=|>>|<|>)\s*([^)\s]+)\s*\))?\s*(?:\[[^]]*\])?\s*$")


def relations(text):
    """[[(name, qualifier, op, version), ...alternatives], ...]"""
    return [[RELATION.match(a).groups() for a in group.split("|")] for group in (text or "").split(",") if group.strip()]


class Package:
    """One stanza."""

    def __init__(self, text):
        self.text = text
        self.fields = {}
        name = None
        for line in text.split("\n"):
            if line[:1] in (" ", "\t"):
                self.fields[name] += "\n" + line
            else:
                key, _, value = line.partition(":")
                name = key.lower()
                self.fields[name] = value.strip()
        self.name, self.version = self.fields["package"], self.fields["version"]

    def get(self, field):
        return self.fields.get(field)

    def source(self):
        m = re.match(r"(\S+)(?: \((.*)\))?$", self.get("source") or self.name)
        return m.group(1), m.group(2) or self.version


def read_stanzas(text):
    return [s.strip("\n") for s in re.split(r"\n\n+", text) if s.strip()]


class Checker:
    """Whether packages can all be there together: each dependency served by one of them, no two in conflict."""

    def __init__(self, packages):
        self.packages = {p.name: p for p in packages}
        self.provided = {}
        for p in packages:
            for group in relations(p.get("provides")):
                name, _, op, version = group[0]
                self.provided.setdefault(name, []).append((p, version if op == "=" else None))

    def served(self, name, qualifier, op, version, but=None):
        p = self.packages.get(name)
        if qualifier not in (None, "any", "native", "amd64"):
            return None
        if p and p is not but and (op is None or version_is(p.version, op, version)) and (
                qualifier != "any" or p.get("multi-arch") == "allowed"):
            return p
        for provider, provided in self.provided.get(name, []) if qualifier != "any" else []:
            if provider is not but and (op is None or (provided and version_is(provided, op, version))):
                return provider
        return None

    def faults(self):
        found = set()
        for p in self.packages.values():
            for field in ("pre-depends", "depends"):
                for group in relations(p.get(field)):
                    if not any(self.served(*a) for a in group):
                        found.add(f"{p.name} needs {' | '.join(a[0] for a in group)}")
            for field in ("conflicts", "breaks"):
                for group in relations(p.get(field)):
                    other = self.served(*group[0], but=p)
                    if other:
                        found.add(f"{p.name} conflicts with {other.name}")
        return found


class Answer:
    """What somebody would do: {name: version} to go in, names to go out; or why not."""

    def __init__(self, out, err, status):
        self.installs, self.removals, self.err, self.refused = {}, set(), err, status != 0
        self.resolver = 0  # how many packages apt's marking left broken, for its problem resolver
        for line in out.split("\n"):
            m = re.match(r"Inst (\S+) (?:\[[^]]*\] )?\((\S+) ", line)
            if m:
                self.installs[m.group(1)] = m.group(2)
            m = re.match(r"Remv (\S+)", line)
            if m:
                self.removals.add(m.group(1))
            m = re.match(r"Starting pkgProblemResolver with broken count: (\d+)", line.strip())
            if m:
                self.resolver = max(self.resolver, int(m.group(1)))
        self.removals -= set(self.installs)

    def same(self, other):
        return (self.refused, self.installs, self.removals) == (other.refused, other.installs, other.removals)

    def difference(self, theirs):
        lines = []
        for name in sorted(set(self.installs) | set(theirs.installs)):
            a, b = theirs.installs.get(name), self.installs.get(name)
            if a != b:
                lines.append(f"{name}: apt {a or 'no'}, imgbuild {b or 'no'}")
        lines += [f"{name}: removed by apt only" for name in sorted(theirs.removals - self.removals)]
        lines += [f"{name}: removed by imgbuild only" for name in sorted(self.removals - theirs.removals)]
        return lines
