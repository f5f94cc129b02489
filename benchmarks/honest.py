"""An honest client in a process of its own: ``python honest.py BASE_URL PERSON PATH``.

It makes calls until it hears a line. Then it prints, as JSON, how many seconds each call took, and how many failed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from calls import Calls

PAUSE, PATIENCE = 0.1, 60.0
VERBS = "getinfo", "identify"


async def honest_call(base_url: str, verb: str, item: str) -> tuple[float, bool]:
    """Make a call over a new connection; return how many seconds it took, and whether it was answered with code 0."""
    client, began, good = Calls(base_url, 1), time.perf_counter(), True
    await client.open()
    try:
        async with asyncio.timeout(PATIENCE):
            await getattr(client, verb)(item)
    except (OSError, ValueError):
        good = False
    await client.aclose()
    return time.perf_counter() - began, good


async def run(base_url: str, item: str) -> list[tuple[float, bool]]:
    """Make calls of each verb, one after another, until there is a line on standard input."""
    done = [await honest_call(base_url, verb, item) for verb in VERBS]
    print("ready", flush=True)
    done.clear()
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

    async def go_on(verb: str) -> None:
        while not over.done():
            done.append(await honest_call(base_url, verb, item))
            await asyncio.sleep(PAUSE)

    await asyncio.gather(*map(go_on, VERBS))
    return done


def main() -> None:
    """Run, and print what came of it."""
    base_url, *item = sys.argv[1:]
    done = asyncio.run(run(base_url, " ".join(item)))
    times, failed = [seconds for seconds, _ in done], sum(not good for _, good in done)
    print(json.dumps({"times": times, "failed": failed}), flush=True)


if __name__ == "__main__":
    main()
