"""What the search cost and what it left: time, tokens, difficulty, and the problems nobody solved.

Section 4: Table 9, and the look at unsolved problems.
"""

from __future__ import annotations

import json

import polars as pl

from report.charts import Series, bar_chart
from report.section import Ask, Section, count, percent, round_names, rounds_of
from rstar.protocols import Verdict

MAX_UNSOLVED = 50
_ENGINE = ("prompt_tokens", "cached_tokens", "busy_ms")


def cost(ask: Ask) -> Section:
    title, lead = "Time and tokens", "Wall time, tokens generated or trained on, and peak memory of each phase."
    frame = ask("cost")
    if frame.is_empty():
        return Section("cost", title, lead, missing="No phase has finished yet.")
    rows = []
    for number in rounds_of(frame):
        phases = frame.filter(round=number).to_dicts()
        for r in phases:
            rows.append(_cost_row(str(number), r["phase"], r["seconds"], r["num_tokens"], r["peak_memory_bytes"]))
        if len(phases) > 1:
            seconds, num_tokens = (sum(r[name] for r in phases) for name in ("seconds", "num_tokens"))
            peak = max(r["peak_memory_bytes"] for r in phases)
            rows.append(_cost_row(str(number), "all phases", seconds, num_tokens, peak))
    rounds, names = rounds_of(frame), frame["phase"].unique(maintain_order=True).to_list()
    known = {(r["round"], r["phase"]): r["seconds"] for r in frame.to_dicts()}
    bars = [Series(p, [known.get((n, p)) for n in rounds], i) for i, p in enumerate(names)]
    chart = bar_chart("Seconds a round, by phase", round_names(rounds), bars, unit=" s", stacked=True)
    header = ("Round", "Phase", "Seconds", "Tokens", "Peak memory")
    return Section("cost", title, lead, header, tuple(rows), (chart,), num_text_columns=2)


def tokens(ask: Ask) -> Section:
    title, lead = "Length of a trajectory", "Tokens the policy generated for a trajectory, and its steps, on average."
    frame = ask("tokens")
    if frame.is_empty():
        return Section("tokens", title, lead, missing="No trajectories yet: the first round's extraction makes them.")
    rows = [
        (
            str(r["round"]),
            r["level"],
            str(r["num_trajectories"]),
            count(r["mean_tokens"], 1),
            count(r["mean_tokens_correct"], 1),
            count(r["mean_steps"], 1),
        )
        for r in frame.to_dicts()
    ]
    header = ("Round", "Level", "Trajectories", "Tokens", "Tokens, right answers", "Steps")
    return Section("tokens", title, lead, header, tuple(rows), note="Compare the paper's Table 9.", num_text_columns=2)


def sandbox(ask: Ask) -> Section:
    title, lead = "The sandbox", "Executed steps of each round's search, how they were run, and what became of them."
    counted = {number: counts for number, _, counts in _searches(ask) if "sandbox_executions" in counts}
    if not counted:
        return Section("sandbox", title, lead, missing="No search has finished yet.")
    verdicts = [f"verdict_{verdict.value}" for verdict in Verdict]
    found = [name for name in verdicts if any(counts.get(f"sandbox_{name}") for counts in counted.values())]
    names = ["executions", "fast_path", "checkpoint_hits", "checkpoint_revivals", "steps_again", "sandbox_lost", *found]
    rows = []
    for number, counts in counted.items():
        cells = [count(counts.get(f"sandbox_{name}", 0)) for name in names]
        spent, waited = counts["sandbox_seconds_ms"], counts["sandbox_wait_seconds_ms"]
        each = count(spent / max(1, counts["sandbox_executions"]), 1)
        rows.append((str(number), *cells, each, percent(100 * waited / spent) if spent else ""))
    told = [name.removeprefix("verdict_").replace("_", " ") for name in found]
    kept = ("Round", "Steps", "Fast path", "Prefix kept", "Prefix run again", "Steps run again in place", "Lost")
    header = (*kept, *told, "ms a step", "of it outside the step")
    note = (
        "A step that is simple arithmetic takes the fast path; the others are forked from a kept interpreter that ran "
        "their prefix, or from one for which it was run again."
    )
    return Section("sandbox", title, lead, header, tuple(rows), note=note, num_text_columns=1)


def engines(ask: Ask) -> Section:
    title = "The engines"
    lead = "What policy and PPM read and wrote in each round's search, and how much of its time they were busy."
    rows = []
    for number, seconds, counts in _searches(ask):
        cells = []
        for name in ("policy", "ppm"):
            read, cached, busy = (counts.get(f"{name}_{key}", 0) for key in _ENGINE)
            share = percent(100 * cached / read) if read and f"{name}_cached_tokens" in counts else ""
            cells += [count(read), share, percent(busy / 10 / seconds) if read and seconds else ""]
        busy = (counts.get("policy_busy_ms", 0) + counts.get("ppm_busy_ms", 0)) / 1000
        cells.insert(2, count(counts.get("policy_generated_tokens", 0)))
        if busy:
            rows.append((str(number), *cells, count(busy / max(1, counts["solved"]), 2)))
    if not rows:
        return Section("engines", title, lead, missing="No search by a model has finished yet.")
    policy = ("Policy read", "Policy: cached", "Policy wrote", "Policy busy")
    header = ("Round", *policy, "PPM read", "PPM: cached", "PPM busy", "Engine seconds a solved problem")
    note = (
        "Engine seconds are both engines'; times of shards are summed. A shard that was resumed counts what was asked "
        "after that."
    )
    return Section("engines", title, lead, header, tuple(rows), note=note, num_text_columns=1)


def waits(ask: Ask) -> Section:
    title = "Waiting"
    lead = "What expansions waited for, of the time they were under way, and how long the policy had nothing to do."
    busy = {
        number: counts["policy_busy_ms"] / 1000 / seconds
        for number, seconds, counts in _searches(ask)
        if counts.get("policy_busy_ms") and seconds
    }
    rows = []
    for row in ask("waits").to_dicts():
        parts = [row[name] for name in ("policy", "sandbox", "scorer")]
        total = sum(parts)
        if total:
            shares = [percent(100 * part / total) for part in parts]
            idle = percent(100 * max(0.0, 1 - busy[row["round"]])) if row["round"] in busy else ""
            each = count(1000 * total / row["expansions"], 1)
            rows.append((str(row["round"]), count(row["expansions"]), each, *shares, idle))
    if not rows:
        return Section("waits", title, lead, missing="No search has finished yet.")
    header = ("Round", "Expansions", "ms each", "for the policy", "for the sandbox", "for the PPM", "Policy idle")
    return Section("waits", title, lead, header, tuple(rows), num_text_columns=1)


def _searches(ask: Ask) -> list[tuple[int, float, dict[str, int]]]:
    """Round, seconds and counts of each search that has finished."""
    return [(row["round"], row["seconds"], json.loads(row["counts"])) for row in ask("search_counts").to_dicts()]


def buckets(ask: Ask) -> Section:
    title = "Easy, medium, hard"
    lead = "What the round's search found for a problem: only right answers, some, or none."
    frame = ask("buckets")
    if frame.is_empty():
        return Section("buckets", title, lead, missing="No search trees yet: the first round's search makes them.")
    kinds = ("easy", "medium", "hard")
    rows = [(str(r["round"]), r["level"], *(str(r[kind]) for kind in kinds)) for r in frame.to_dicts()]
    sums = frame.group_by("round", maintain_order=True).agg(pl.col(kinds).sum())
    bars = [Series(kind, sums[kind].to_list(), colour) for kind, colour in zip(kinds, (2, 4, 1), strict=True)]
    chart = bar_chart("Problems by bucket and round", round_names(sums["round"].to_list()), bars, unit="", stacked=True)
    header = ("Round", "Level", "Easy", "Medium", "Hard")
    return Section("buckets", title, lead, header, tuple(rows), (chart,), num_text_columns=2)


def unsolved(ask: Ask) -> Section:
    title = "Unsolved problems"
    lead = (
        "Not solved in the last round, the most agreed-on wrong answer first: of real problems it is often the label "
        "that is wrong (not of generated ones)."
    )
    if ask("coverage").is_empty():
        return Section("unsolved", title, lead, missing="No search trees yet: the first round's search makes them.")
    frame = ask("unsolved")
    if frame.is_empty():
        return Section("unsolved", title, lead, missing="None: the last round solved every problem it searched.")
    rows = [
        (
            r["problem_id"][:12],
            r["level"],
            _clip(r["question"]),
            r["labelled_answer"] or "–",
            r["majority_answer"] or "no answer",
            f"{r['num_votes']} of {r['num_answers']}",
        )
        for r in frame.head(MAX_UNSOLVED).to_dicts()
    ]
    header = ("Problem", "Level", "Question", "Labelled answer", "Majority answer", "Votes")
    note = "Of 20 such problems that the paper's authors inspected, 19 had wrong labels."
    if frame.height > MAX_UNSOLVED:
        note = f"The first {MAX_UNSOLVED} of {frame.height}; rstar sql shows all. {note}"
    return Section("unsolved", title, lead, header, tuple(rows), note=note, num_text_columns=5)


def _cost_row(number: str, phase: str, seconds: float, num_tokens: int, peak: int) -> tuple[str, ...]:
    return (number, phase, count(seconds, 1), count(num_tokens), f"{peak / 2**30:.1f} GiB")


def _clip(text: str | None, length: int = 220) -> str:
    text = " ".join((text or "–").split())
    return text if len(text) <= length else text[: length - 1] + "…"
