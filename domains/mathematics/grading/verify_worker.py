"""A process that compares answers with Math-Verify: one JSON request a line in, one JSON reply a line out.

Run as a script by verify_pool.py. Math-Verify's own time-outs are signals whose handlers Python runs between
two bytecodes, so a long integer power outlives them. Here they are off, and two kernel timers with their default
action end the whole process instead: SIGPROF after `timeout` seconds of CPU, SIGALRM after ten times that on the
clock, which also ends a worker whose parent died in the middle of a comparison.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import sys
from typing import Any

MEMORY_BYTES = 2 << 30


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    return list(parse(text, parsing_timeout=None))


def equal(answer: str, other: str) -> bool:
    """Whether Math-Verify takes the two for the same, whichever of them is the gold one."""
    from math_verify import verify

    parsed = _parse(answer), _parse(other)
    return any(
        verify(gold, prediction, timeout_seconds=None, allow_set_relation_comp=True)
        for gold, prediction in (parsed, parsed[::-1])
    )


def parseable(answer: str) -> bool:
    """Whether Math-Verify finds an expression in the answer, and finds that expression equal to itself."""
    from math_verify import verify

    return any(not isinstance(e, str) and verify(e, e, timeout_seconds=None) for e in _parse(answer))


def _answer(request: dict[str, Any]) -> bool:
    timeout_s = request["timeout"]
    signal.setitimer(signal.ITIMER_PROF, timeout_s)
    signal.setitimer(signal.ITIMER_REAL, 10 * timeout_s)
    try:
        return equal(*request["args"]) if request["op"] == "equal" else parseable(*request["args"])
    except Exception:  # whatever a strange string does to a parser, it is not an equal answer
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints may look like a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _parse("$x^2$")  # imports, and builds the grammar, outside of any time-out
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
