"""Turns a server's report into a verdict, and separates "the code failed" from "the sandbox died"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rstar.protocols import Execution, SandboxLost, Verdict
from sandbox.limits import Limits

BY_STATUS = {
    "ok": Verdict.OK,
    "exception": Verdict.EXCEPTION,
    "memory": Verdict.MEMORY_LIMIT,
    "forbidden": Verdict.FORBIDDEN,
}


def execution_of(report: Mapping[str, Any] | None, limits: Limits) -> Execution:
    """Return the verdict on a step. It depends on how the step ended, never on its output. Sets no checkpoint.

    A report has an `ending`: finished (with the interpreter's `status`, `error`, `echo`), timed_out, output_overflow,
    out_of_memory, forged, folder_overflow, vanished (the step's process ended without a reply), unlike_itself (the
    steps before it could not run again), unstarted, parent_gone. Those before the last two are the code's fault. The
    last two, and a missing report, are the sandbox's fault: they raise SandboxLost, and a retry may help.
    """
    if report is None:
        raise SandboxLost("the sandbox server died")
    ending, output = report.get("ending"), str(report.get("output", ""))
    seconds = float(report.get("seconds", 0.0))
    if ending == "timed_out":
        return Execution(Verdict.TIME_LIMIT, output, f"the step ran longer than {limits.seconds:g} s", None, seconds)
    if ending == "vanished":
        return Execution(Verdict.EXCEPTION, output, "ProcessExit: the step ended its own process", None, seconds)
    if ending == "unlike_itself":
        return Execution(Verdict.EXCEPTION, output, "ProcessExit: the steps before ended their process", None, seconds)
    if ending == "folder_overflow":
        return Execution(Verdict.EXCEPTION, output, "OSError: the step left too many or too large files", None, seconds)
    if ending == "forged":
        return Execution(Verdict.FORBIDDEN, output, "Forbidden: the step wrote to the sandbox's channel", None, seconds)
    if ending == "out_of_memory":
        return Execution(Verdict.MEMORY_LIMIT, output, "the step used more memory than there is", None, seconds)
    if ending == "finished" and report.get("status") in BY_STATUS:
        verdict, echo = BY_STATUS[report["status"]], str(report.get("echo", ""))
        output = output or echo
        if len(output.encode("utf-8", errors="replace")) <= limits.output_bytes:
            memory = int(report.get("memory_bytes", 0))
            return Execution(verdict, output.rstrip("\n"), str(report.get("error", "")), None, seconds, memory)
        ending = "output_overflow"
    if ending == "output_overflow":
        error = f"the step printed more than {limits.output_bytes} bytes"
        return Execution(Verdict.OUTPUT_LIMIT, output[: limits.output_bytes], error, None, seconds)
    raise SandboxLost(f"the sandbox could not run the step ({ending})")
