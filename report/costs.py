"""Sections on what a run spent: time, tokens and memory, and the work of engines and sandbox.

Section 4: Table 9.
"""

from __future__ import annotations

import json

from report import paper
from report.section import Ask, Chart, Section, Series, count, percent, round_names, rounds_of
from rstar.protocols import Verdict

_ENGINE = ("prompt_tokens", "cached_tokens", "busy_ms")
_NO_SEARCH = "No search has finished yet."


def cost(ask: Ask) -> Section:
    title, lead = "Time and tokens", "Wall time, tokens generated or trained on, and peak memory of each phase."
    frame = ask("cost")
    if frame.is_empty():
        return Section("cost", title, lead, missing="No phase has finished yet.")
    rounds, rows = rounds_of(frame), []
    for number in rounds:
        phases = frame.filter(round=number).to_dicts()
        for r in phases:
            rows.append(_cost_row(str(number), r["phase"], r["seconds"], r["num_tokens"], r["peak_memory_bytes"]))
        if len(phases) > 1:
            seconds, num_tokens = (sum(r[name] for r in phases) for name in ("seconds", "num_tokens"))
            peak = max(r["peak_memory_bytes"] for r in phases)
            rows.append(_cost_row(str(number), "all phases", seconds, num_tokens, peak))
    # The last round's phases are the most complete list in their order; the base has an evaluation alone.
    names = frame.sort("round", descending=True, maintain_order=True)["phase"].unique(maintain_order=True).to_list()
    known = {(r["round"], r["phase"]): r["seconds"] for r in frame.to_dicts()}
    bars = [Series(name, [known.get((n, name)) for n in rounds], i) for i, name in enumerate(names)]
    chart = Chart("Seconds a round, by phase", round_names(rounds), bars, "stacked bars", unit=" s")
    header = ("Round", "Phase", "Seconds", "Tokens", "Peak memory")
    return Section("cost", title, lead, header, tuple(rows), chart, num_text_columns=2)


def _cost_row(number: str, phase: str, seconds: float, num_tokens: int, peak_bytes: int) -> tuple[str, ...]:
    return (number, phase, count(seconds, 1), count(num_tokens), f"{peak_bytes / 2**30:.1f} GiB")


def tokens(ask: Ask) -> Section:
    title, lead = "Length of a trajectory", "Mean number of tokens the policy generated for a trajectory, and of steps."
    frame = ask("tokens")
    if frame.is_empty():
        return Section("tokens", title, lead, missing="No trajectories yet: the first round's extraction makes them.")
    means = ("mean_tokens", "mean_tokens_correct", "mean_steps")
    rows = [
        (str(r["round"]), r["level"], str(r["num_trajectories"]), *(count(r[name], 1) for name in means))
        for r in frame.to_dicts()
    ]
    header = ("Round", "Level", "Trajectories", "Tokens", "Tokens, right answers", "Steps")
    note = f"Paper: Table 9, {count(paper.TOKENS)} tokens on MATH."
    return Section("tokens", title, lead, header, tuple(rows), note=note, num_text_columns=2)


def sandbox(ask: Ask) -> Section:
    title, lead = "Sandbox", "The steps that each round's search executed: how, and with what verdict."
    counted = {number: counts for number, _, counts in _searches(ask) if "sandbox_executions" in counts}
    if not counted:
        return Section("sandbox", title, lead, missing=_NO_SEARCH)
    verdicts = [f"verdict_{verdict.value}" for verdict in Verdict]
    found = [name for name in verdicts if any(counts.get(f"sandbox_{name}") for counts in counted.values())]
    names = ["executions", "fast_path", "checkpoint_hits", "checkpoint_revivals", "steps_again", "sandbox_lost", *found]
    rows = []
    for number, counts in counted.items():
        cells = [count(counts.get(f"sandbox_{name}", 0)) for name in names]
        spent, waited = counts["sandbox_seconds_ms"], counts["sandbox_wait_seconds_ms"]
        each = count(spent / max(1, counts["sandbox_executions"]), 1)
        rows.append((str(number), *cells, each, percent(100 * waited / spent) if spent else ""))
    how = ("Round", "Steps", "Fast path", "Prefix kept", "Prefix run again", "Steps run again in place", "Lost")
    header = (*how, *(name.removeprefix("verdict_").replace("_", " ") for name in found), "ms a step", "Overhead")
    note = (
        "A step of simple arithmetic takes the fast path. Any other step runs in a fork of an interpreter that has "
        "already run the steps before it; if none was kept, they are run again. Overhead is time outside the step."
    )
    return Section("sandbox", title, lead, header, tuple(rows), note=note)


def engines(ask: Ask) -> Section:
    title = "Engines"
    lead = "Tokens that the policy and the PPM read and generated in each round's search, and how busy they were."
    rows = []
    for number, seconds, counts in _searches(ask):
        cells = []
        for name in ("policy", "ppm"):
            read, cached, busy = (
                counts.get(f"{name}_{key}", 0) for key in ("prompt_tokens", "cached_tokens", "busy_ms")
            )
            share = percent(100 * cached / read) if read and f"{name}_cached_tokens" in counts else ""
            cells += [count(read), share, percent(busy / 10 / seconds) if read and seconds else ""]
        cells.insert(2, count(counts.get("policy_generated_tokens", 0)))
        busy_seconds = (counts.get("policy_busy_ms", 0) + counts.get("ppm_busy_ms", 0)) / 1000
        if busy_seconds:
            rows.append((str(number), *cells, count(busy_seconds / max(1, counts["solved"]), 2)))
    if not rows:
        return Section("engines", title, lead, missing="No search by a model has finished yet.")
    policy = ("Policy read", "Policy: cached", "Policy generated", "Policy busy")
    header = ("Round", *policy, "PPM read", "PPM: cached", "PPM busy", "Engine seconds a solved problem")
    note = (
        "Engine seconds are those of both engines, summed over shards. For a resumed shard only the requests after "
        "the resumption count."
    )
    return Section("engines", title, lead, header, tuple(rows), note=note)


def waits(ask: Ask) -> Section:
    title, lead = "Waiting", "What expansions waited for, as shares of their time, and how long the policy was idle."
    busy = {
        number: counts["policy_busy_ms"] / 1000 / seconds
        for number, seconds, counts in _searches(ask)
        if counts.get("policy_busy_ms") and seconds
    }
    rows = []
    for row in ask("waits").to_dicts():
        parts = [row[name] for name in ("policy", "sandbox", "scorer")]
        if total := sum(parts):
            shares = [percent(100 * part / total) for part in parts]
            idle = percent(100 * max(0.0, 1 - busy[row["round"]])) if row["round"] in busy else ""
            each = count(1000 * total / row["expansions"], 1)
            rows.append((str(row["round"]), count(row["expansions"]), each, *shares, idle))
    if not rows:
        return Section("waits", title, lead, missing=_NO_SEARCH)
    header = ("Round", "Expansions", "ms each", "for the policy", "for the sandbox", "for the PPM", "Policy idle")
    return Section("waits", title, lead, header, tuple(rows))


def _searches(ask: Ask) -> list[tuple[int, float, dict[str, int]]]:
    """Round, seconds and counts of each finished search."""
    return [(row["round"], row["seconds"], json.loads(row["counts"])) for row in ask("search_counts").to_dicts()]
