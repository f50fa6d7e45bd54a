"""`python -m benchmarks.callers`: calls an address over many connections at once and says how long each answer took.

A process of its own, so that what the callers cost does not count as the receiver's. One job per line of standard
input, one result per line of output, both JSON.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 30


def call_all(job: dict[str, Any]) -> dict[str, Any]:
    """Share the calls out over the connections; each makes its next call when it has the answer to the last."""
    address = urlsplit(job["url"])
    path = f"{address.path}?{address.query}"
    calls = iter([(body.encode(), headers) for body, headers in job["calls"]])
    taking = Lock()
    connections = [
        http.client.HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE_S)
        for _ in range(job["connections"])
    ]

    def take() -> Iterator[tuple[bytes, dict[str, str]]]:
        while True:
            with taking:
                call = next(calls, None)
            if call is None:
                return
            yield call

    def run(connection: http.client.HTTPConnection) -> list[tuple[int, float]]:
        answers = []
        for body, headers in take():
            began = perf_counter()
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            answers.append((answer.status, perf_counter() - began))
        return answers

    for connection in connections:
        connection.connect()
    with ThreadPoolExecutor(len(connections)) as callers:
        began = perf_counter()
        answers = [answer for answered in callers.map(run, connections) for answer in answered]
        took_s = perf_counter() - began
    for connection in connections:
        connection.close()
    return {
        "took_s": took_s,
        "answers_s": [seconds for _, seconds in answers],
        "statuses": Counter(status for status, _ in answers),
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(call_all(json.loads(line))), flush=True)
