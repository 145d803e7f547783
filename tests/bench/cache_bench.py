"""What verification costs on a long history: anew in all, and with its cache after a hundred new entries.

`python -m tests.bench.cache_bench [ENTRIES]` prints one JSON object. Every look is the command itself in a fresh
process, its start included. Memory is looked at while it runs: the anonymous pages of each process, which are its
own, and all that is resident, pages of the repository's files included.
"""

from __future__ import annotations

import cProfile
import functools
import json
import os
import pstats
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.adapters.git import sshsig
from controller.model import keys
from controller.uses.audit.verify import verify
from tests.support.home import Home

STEP = timedelta(seconds=30)
"""Between entries: some 300 runs a day in one environment, which is a lot."""
RELEASES = 20
NEW = 100
"""Entries between two looks."""
COUNTED = 700
"""Entries over which signatures are counted: few enough for one process to walk them."""


def bare_check_us(check: Callable[[bytes, bytes, bytes], object]) -> float:
    """Microseconds of one Ed25519 check (key, signature, data) over as many bytes as a statement has."""
    private = ed25519.Ed25519PrivateKey.generate()
    data = b"x" * 1500
    signature, public = private.sign(data), private.public_key().public_bytes_raw()
    took = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(2000):
            check(public, signature, data)
        took.append((time.process_time() - begun) / 2000)
    return min(took) * 1e6


def by_openssl() -> Callable[[bytes, bytes, bytes], object]:
    """OpenSSL's check, as most tools do it; the key is read once."""
    read = functools.lru_cache(ed25519.Ed25519PublicKey.from_public_bytes)
    return lambda key, signature, data: read(key).verify(signature, data)


def signatures_an_entry(home: Home) -> float:
    """Ed25519 checks that verification makes of an entry: of commit and envelope, of its part in a checkpoint, and
    of what agents said and signed. Counted where the library is called."""
    profile = cProfile.Profile()
    answer = profile.runcall(verify, home.repo, home.root, verify_ssh=sshsig.verify)
    if not answer.verified:
        raise RuntimeError(f"not verified: {answer.findings[:3]}")
    called = pstats.Stats(profile).get_stats_profile().func_profiles["crypto_sign_open"].ncalls
    return int(called) / answer.entries


def grow(home: Home, entries: int) -> None:
    """Promote, deploy and seal until there are that many entries."""
    while (written := home.ledger.state.cursors.index) < entries:
        home.batch(home.story.run("dev", f"release-{written % RELEASES}"))
        home.passes.clear()  # what was pushed is not asked for again
        home.repo.maintain()


def look(home: Home, root: Path, cache: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory (MB) of one command; it must say yes."""
    program = [sys.executable, "-m", "controller", "--repo", str(home.origin), "-o", "json"]
    # As an installed command starts: its byte code was compiled before.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache.parent / "bytecode")
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    peak: dict[int, tuple[float, float]] = {}
    with subprocess.Popen(
        [*program, "verify", "--trust-root", str(root), "--cache", str(cache)],
        stdout=subprocess.PIPE,
        env=environment,
    ) as running:
        while running.poll() is None:
            for pid in _family(running.pid):
                own, resident = _memory(pid)
                known = peak.get(pid, (0.0, 0.0))
                peak[pid] = max(own, known[0]), max(resident, known[1])
            time.sleep(0.05)
        seconds = time.perf_counter() - begun
        assert running.stdout is not None
        answer = json.loads(running.stdout.read())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not answer["verified"]:
        raise RuntimeError(f"not verified: {answer['findings'][:3]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "entries": answer["entries"],
        "seconds": seconds,
        "cpu": cpu,
        "own": max((own for own, _ in peak.values()), default=0.0),
        "resident": max((resident for _, resident in peak.values()), default=0.0),
    }


def _family(pid: int) -> list[int]:
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    except OSError:
        pass
    return found


def _memory(pid: int) -> tuple[float, float]:
    """MB of a process: (anonymous, resident in all)."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(lines["RssAnon"].split()[0]) / 1e3, int(lines["VmRSS"].split()[0]) / 1e3
    except (OSError, KeyError):
        return 0.0, 0.0


def main(entries: int = 100_000) -> dict[str, Any]:
    """Build, measure, clean up."""
    folder = Path(tempfile.mkdtemp(prefix="lockgate-bench-"))
    try:
        home = Home(folder, step=STEP)
        for n in range(RELEASES):
            home.release(f"release-{n}")
        root = folder / "trust-root.json"
        home.root.save(root)
        grow(home, COUNTED)
        signatures = signatures_an_entry(home)
        grow(home, entries)
        home.repo.maintain(wait=True)
        cache = folder / "cache" / "verified.json"
        anew = look(home, root, cache)
        cached = []
        for _ in range(5):
            grow(home, home.ledger.state.cursors.index + NEW)
            cached.append(look(home, root, cache))
        home.repo.close()
        still = look(home, root, cache)
        bare = bare_check_us(by_openssl())
        each = anew["cpu"] / anew["entries"] / signatures * 1e6
        return {
            "entries": int(anew["entries"]),
            "anew_s": round(anew["seconds"], 1),
            "anew_cpu_s": round(anew["cpu"], 1),
            "anew_own_mb": round(anew["own"]),
            "anew_resident_mb": round(anew["resident"]),
            "signatures_an_entry": round(signatures, 2),
            "bare_check_us": round(bare, 1),
            "own_check_us": round(bare_check_us(keys.ed25519_holds), 1),
            "signature_us": round(each, 1),
            "signature_over_bare": round(each / bare, 2),
            "cached_s": round(statistics.median(one["seconds"] for one in cached), 2),
            "cached_cpu_s": round(statistics.median(one["cpu"] for one in cached), 2),
            "cached_mb": round(max(one["resident"] for one in cached)),
            "nothing_new_s": round(still["seconds"], 2),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    print(json.dumps(main(*(int(a) for a in sys.argv[1:2])), indent=2))
