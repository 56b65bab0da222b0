"""A server under load whose bundle is replaced again and again: does a request fail, does memory grow?

    python -m benchmarks.serving --swaps --minutes 10 [--bundle BUNDLE --rows PARQUET] [--json]

wrk sends the published setting's requests (400 clients, 32 rows each) without a pause. Every 20 s the link that is
served points to another folder with a higher step, and SIGHUP tells the server so; all processes load it beside the old
one. Memory is that of all processes of the server without what they map of files, which the kernel takes back as it
likes; it is compared from the third swap on, when two versions are loaded.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.serving_load import Load, Requests, closed_loop
from trainer.serving.signature import SIGNATURE, read_signature, write_signature

EVERY_S, WAIT_S = 20.0, 15.0
_SETTLED = 3  # swaps until the server holds what it holds from then on: two versions, and room for a third


class Newer:
    """A bundle again and again, each time with a higher step, behind the link that is served."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self._bundle, self._folder, self.link = bundle, folder, folder / "current"
        self.step = read_signature(bundle).source.step
        self.next()

    def next(self) -> int:
        """Puts the next one in its place, and returns its step. What was served two steps before is removed."""
        self.step += 1
        made = self._folder / f"step_{self.step}"
        made.mkdir()
        for path in self._bundle.rglob("*"):
            place = made / path.relative_to(self._bundle)
            place.mkdir() if path.is_dir() else place.symlink_to(path.absolute())
        signature = read_signature(self._bundle)
        (made / SIGNATURE).unlink()
        source = signature.source.model_copy(update={"step": self.step})
        write_signature(made, signature.model_copy(update={"source": source}))
        draft = self._folder / "draft"
        draft.symlink_to(made)
        os.replace(draft, self.link)
        shutil.rmtree(self._folder / f"step_{self.step - 3}", ignore_errors=True)
        return self.step


def measure_swaps(
    url: str, parent: int, bundles: Newer, requests: Requests, clients: int, seconds: float, work: Path
) -> dict[str, float]:
    """Swaps until wrk has sent for `seconds`. Raises SystemExit: a swap did not reach all processes."""
    memory, took, stop = [_own_mib(parent)], list[float](), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(closed_loop, url, requests, clients, seconds, work)
        load.add_done_callback(lambda _: stop.set())
        while not stop.wait(EVERY_S):
            begin, step = time.monotonic(), bundles.next()
            os.kill(parent, signal.SIGHUP)
            _wait_for(url, step)
            took.append(time.monotonic() - begin)
            memory.append(_own_mib(parent))
            print(f"step {step} after {took[-1]:.2f} s, {memory[-1]:,.0f} MiB", file=sys.stderr)
        found: Load = load.result()
    settled = memory[_SETTLED:] or memory[-1:]
    return {
        "swaps": len(took),
        "swaps_failed_requests": found.failed,
        "swaps_requests": round(found.requests_per_second * seconds),
        "swaps_requests_per_second": found.requests_per_second,
        "swaps_p99_ms": found.p99_ms,
        "swap_longest_s": max(took, default=0.0),
        "swaps_memory_first_mib": settled[0],
        "swaps_memory_last_mib": settled[-1],
        "swaps_memory_most_mib": max(settled),
    }


def _wait_for(url: str, step: int) -> None:
    """Until every new connection, of which several go to each process, meets the step."""
    end, seen = time.monotonic() + WAIT_S, 0
    while seen < 12:
        with urllib.request.urlopen(f"{url}/health", timeout=30) as answer:
            seen = seen + 1 if json.load(answer)["step"] == step else 0
        if time.monotonic() > end:
            raise SystemExit(f"step {step} is not served everywhere after {WAIT_S:g} s")


def _own_mib(parent: int) -> float:
    """Memory of a server's processes that is in no file, in MiB."""
    total = 0
    for pid in (parent, *_children(parent)):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += int(line.split()[1])
    return total / 1024


def _children(parent: int) -> list[int]:
    threads = Path(f"/proc/{parent}/task").iterdir()
    return [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
