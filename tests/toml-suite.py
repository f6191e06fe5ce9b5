"""Compare a toml-test decoder with the suite's expectations: toml-suite.py DECODER FOLDER"""

import datetime
import json
import math
import pathlib
import subprocess
import sys


def fraction(text):
    """Split "…:07.5Z" into the text without the fraction and the fraction in nanoseconds."""
    head, dot, rest = text.partition(".")
    if not dot:
        return text, 0
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return head + rest[len(digits):], int(digits[:9].ljust(9, "0"))


def same_scalar(kind, want, got):
    if kind == "float":
        if want.lstrip("+-") == "nan":
            return math.isnan(float(got))
        return float(want) == float(got)
    if kind in ("datetime", "datetime-local", "date-local", "time-local"):
        (want, want_ns), (got, got_ns) = fraction(want.upper()), fraction(got.upper())
        if want_ns != got_ns:
            return False
        if kind == "datetime":
            return datetime.datetime.fromisoformat(want.replace("Z", "+00:00")) == datetime.datetime.fromisoformat(
                got.replace("Z", "+00:00")) and want[-6:] == got[-6:]
        return want.replace(" ", "T") == got.replace(" ", "T")
    return want == got


def same(want, got):
    if isinstance(want, list):
        return isinstance(got, list) and len(want) == len(got) and all(map(same, want, got))
    if not isinstance(want, dict) or not isinstance(got, dict) or want.keys() != got.keys():
        return False
    if want.keys() == {"type", "value"} and isinstance(want["type"], str):
        return want["type"] == got["type"] and same_scalar(want["type"], want["value"], got["value"])
    return all(same(want[k], got[k]) for k in want)


def main():
    decoder, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    counts = {"valid": 0, "invalid": 0}
    misses = []
    for name in (folder / "files-toml-1.0.0").read_text().split():
        if not name.endswith(".toml"):
            continue
        kind = name.split("/")[0]
        path = folder / name
        run = subprocess.run([decoder], input=path.read_bytes(), capture_output=True, timeout=20, check=False)
        counts[kind] += 1
        if kind == "invalid":
            if run.returncode != 1 or run.stdout:
                misses.append(f"{name}: accepted (status {run.returncode})")
        elif run.returncode != 0:
            misses.append(f"{name}: {run.stderr.decode(errors='replace').strip()}")
        elif not same(json.loads(path.with_suffix(".json").read_text()), json.loads(run.stdout)):
            misses.append(f"{name}: decoded to something else")
    for miss in misses:
        print("MISS", miss)
    print(f"toml-test 1.0.0: {counts['valid']} valid, {counts['invalid']} invalid, {len(misses)} missed")
    return 1 if misses or not counts["valid"] or not counts["invalid"] else 0


sys.exit(main())
