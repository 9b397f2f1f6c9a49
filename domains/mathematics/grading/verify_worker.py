"""A process that compares answers with Math-Verify.

verify_pool.py runs it as a script. Each line of its input is a JSON request, each line of its output a JSON reply.
Math-Verify's own time limits are signals whose handlers Python runs between two bytecodes, so they cannot interrupt a
long integer power. They are switched off here. Instead two kernel timers end the whole process: SIGPROF after `timeout`
seconds of CPU time, and SIGALRM after ten times that in wall-clock time. The latter also ends a worker whose parent
died during a comparison.
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
    from math_verify import parse  # type: ignore[import-untyped]

    return list(parse(text, parsing_timeout=None))


def equal(answer: str, other: str) -> bool:
    """Return whether Math-Verify finds two answers equal, with either of them as the ground truth."""
    from math_verify import verify

    parsed = _parse(answer), _parse(other)
    return any(
        verify(gold, prediction, timeout_seconds=None, allow_set_relation_comp=True)
        for gold, prediction in (parsed, parsed[::-1])
    )


def parseable(answer: str) -> bool:
    """Return whether Math-Verify finds an expression in the answer that it finds equal to itself."""
    from math_verify import verify

    return any(not isinstance(e, str) and verify(e, e, timeout_seconds=None) for e in _parse(answer))


def _answer(request: dict[str, Any]) -> bool:
    timeout_s = request["timeout"]
    signal.setitimer(signal.ITIMER_PROF, timeout_s)
    signal.setitimer(signal.ITIMER_REAL, 10 * timeout_s)
    try:
        return equal(*request["args"]) if request["op"] == "equal" else parseable(*request["args"])
    except Exception:  # a text that the parser cannot read equals no answer
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Answer requests until the input ends."""
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be read as a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    _parse("$x^2$")  # imports Math-Verify and builds its grammar, without a time limit
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
