"""Sections on what a run achieved: coverage, policy, whole system, PPM, and the steps behind right answers.

Section 4: Tables 2 to 8, with the paper's figures beside the run's.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from report import paper
from report.section import Ask, Chart, Section, Series, count, levels_of, percent, round_names, rounds_of

PAPER = "paper"
PAPER_ON_MATH = "paper, on MATH"
METRICS = {
    "pass@1": "policy",
    "majority": "majority, equal tokens",
    "best_of_n": "best of n",
    "beam": "beam search",
    "system": "system",
    "system_majority": "system, majority",
    "system_weighted": "system, weighted majority",
}
CHOICES = {
    "every correct": "every right answer",
    "random": "random",
    "rejection": "rejection-sampled",
    "verified": "step-verified",
}


def coverage(ask: Ask) -> Section:
    title, lead = "Coverage", "Share of the problems for which the round's search found a right answer."
    frame = ask("coverage")
    if frame.is_empty():
        return Section("coverage", title, lead, missing="No search trees yet: the first round's search makes them.")
    levels, rounds = levels_of(frame), rounds_of(frame)
    known = {(row["round"], row["level"]): row["coverage"] for row in frame.to_dicts()}
    num_problems = dict(frame.filter(level="all").select("round", "num_problems").iter_rows())
    columns, lines = [], []
    for colour, level in enumerate(levels):
        ours = [known.get((n, level)) for n in rounds]
        columns.append((level, ours))
        lines.append(Series(level, ours, colour))
        if level in paper.COVERAGE:
            theirs = [paper.COVERAGE[level].get(n) for n in rounds]
            columns.append((f"{level}, paper", theirs))
            lines.append(Series(level, theirs, colour, PAPER))
    rows = [
        (str(n), count(num_problems.get(n)), *(percent(values[place]) for _, values in columns))
        for place, n in enumerate(rounds)
    ]
    header = ("Round", "Problems", *(name for name, _ in columns))
    chart = Chart("Coverage by level and round", round_names(rounds), lines, top=100)
    note = "Paper: Table 2, 747k problems. Synthetic problems are a level of their own and not part of “all”."
    by_rules = ask("searchers").filter(model="rules")["round"].to_list()
    if by_rules:
        note += (
            f" In round {by_rules[0]} a rule-based writer, which makes mistakes at fixed rates, wrote the steps. "
            "It stands in for the paper's 236B model."
        )
    return Section("coverage", title, lead, header, tuple(rows), chart, note)


def pass_at_1(ask: Ask) -> Section:
    title = "Policy pass@1"
    lead = "How often the policy's first answer to a held-out problem is right. Row 0 is the base model."
    frame = ask("pass_at_1")
    if frame.is_empty():
        return Section("policy", title, lead, missing="No pass@1 evaluation yet: a round's evaluation makes it.")
    levels, rounds = levels_of(frame), rounds_of(frame)
    rows, known = [], {(row["round"], row["level"]): row for row in frame.to_dicts()}
    for number in rounds:
        cells = [f"{number} (base)" if number == 0 else str(number), str(known[number, "all"]["num_problems"])]
        cells += [percent(known[number, level]["accuracy"]) if (number, level) in known else "–" for level in levels]
        rows.append((*cells, percent(paper.PASS_AT_1.get(number))))
    lines = [
        Series(level, [known[n, level]["accuracy"] if (n, level) in known else None for n in rounds], colour)
        for colour, level in enumerate(levels)
    ]
    lines.append(Series("all", [paper.PASS_AT_1.get(n) for n in rounds], 0, PAPER_ON_MATH))
    chart = Chart("Policy pass@1 by round", round_names(rounds), lines, top=100)
    header = ("Round", "Problems", *levels, "MATH, paper")
    return Section("policy", title, lead, header, tuple(rows), chart, "Paper: Table 3, on MATH.")


def systems(ask: Ask) -> Section:
    title = "Policy, majority and system"
    lead = (
        "The policy alone (System 1), majority voting, and search with the PPM (System 2) on the held-out problems, "
        "with the tokens that each spends on a problem. A majority of the system votes over its own trajectories."
    )
    frame = ask("accuracy")
    if frame.filter(pl.col("metric") != "pass@1").is_empty():
        return Section("system", title, lead, missing="No evaluation of the system yet: a round's evaluation makes it.")
    levels = levels_of(frame)
    known = {(r["round"], r["metric"], r["num_trajectories"], r["level"]): r for r in frame.to_dicts()}
    rows = []
    for key in frame.select("round", "metric", "num_trajectories").unique(maintain_order=True).rows():
        number, metric, num_trajectories = key
        cells = [str(number), METRICS.get(metric, metric), str(num_trajectories)]
        cells += [percent(known[*key, level]["accuracy"]) if (*key, level) in known else "–" for level in levels]
        theirs = {"system": paper.SYSTEM, "pass@1": paper.PASS_AT_1}.get(metric, {})
        rows.append((*cells, percent(theirs.get(number)), count(known[*key, "all"]["mean_tokens"])))
    header = ("Round", "Method", "Trajectories", *levels, "MATH, paper", "Tokens a problem")
    note = (
        f"Paper: Tables 3 and 6, on MATH; with 64 trajectories the system reaches {percent(paper.SYSTEM_64)}. "
        f"The system with each reward model: {_listed(paper.REWARD_MODEL)} (Table 8)."
    )
    return Section("system", title, lead, header, tuple(rows), _systems_chart(frame), note, num_text_columns=2)


def _systems_chart(frame: pl.DataFrame) -> Chart:
    """One line a method over all levels; the paper's system beside the first of this run's."""
    overall, rounds = frame.filter(level="all"), rounds_of(frame)
    lines: list[Series] = []
    for colour, (metric, num) in enumerate(
        overall.select("metric", "num_trajectories").unique(maintain_order=True).rows()
    ):
        method = overall.filter(metric=metric, num_trajectories=num)
        accuracy = dict(method.select("round", "accuracy").iter_rows())
        name = METRICS.get(metric, metric) + ("" if num == 1 else f", {num} trajectories")
        lines.append(Series(name, [accuracy.get(n) for n in rounds], colour))
        if metric == "system" and all(line.source != PAPER_ON_MATH for line in lines):
            lines.append(Series(name, [paper.SYSTEM.get(n) for n in rounds], colour, PAPER_ON_MATH))
    return Chart("Accuracy by round, all levels", round_names(rounds), lines, top=100)


def ppm_pairs(ask: Ask) -> Section:
    title, lead = "PPM", "How often the round's PPM scores the better of two held-out steps higher; chance is 50 %."
    frame = ask("ppm_pairs")
    if frame.is_empty():
        missing = "No held-out pairs ranked yet: rounds with a PPM rank them if evaluation.pair_problems is above 0."
        return Section("ppm", title, lead, missing=missing)
    rows = []
    for r in frame.to_dicts():
        margin = "–" if r["mean_margin"] is None else f"{r['mean_margin']:+.3f}"
        rows.append((str(r["round"]), str(r["num_pairs"]), percent(r["accuracy"]), margin))
    rounds = rounds_of(frame)
    lines = [
        Series("pairs ranked correctly", frame["accuracy"].to_list()),
        Series("pairs ranked correctly", [50.0] * len(rounds), source="chance"),
    ]
    chart = Chart("PPM pair accuracy by round", round_names(rounds), lines, top=100)
    note = "The paper has no such figure: it measures a PPM by the accuracy of the system with it (Table 4)."
    return Section("ppm", title, lead, ("Round", "Pairs", "Accuracy", "Mean margin"), tuple(rows), chart, note)


def wrong_steps(ask: Ask) -> Section:
    title = "Right answers with a wrong step"
    lead = (
        "Of the chosen trajectories with a right answer, the share with a step that is wrong in fact. "
        "Step verification is there to avoid these."
    )
    frame = ask("wrong_steps")
    if frame.is_empty():
        missing = "Not known: only steps of generated problems are checked, and no chosen trajectory has such steps."
        return Section("wrong-steps", title, lead, missing=missing)
    frame = frame.with_columns(pl.col("choice").replace(CHOICES))
    rows = [
        (str(r["round"]), r["choice"], str(r["num_trajectories"]), str(r["num_wrong_step"]), percent(r["share"]))
        for r in frame.to_dicts()
    ]
    rounds = rounds_of(frame)
    known = {(r["round"], r["choice"]): r["share"] for r in frame.to_dicts()}
    choices = frame["choice"].unique(maintain_order=True).to_list()
    bars = [Series(choice, [known.get((n, choice)) for n in rounds], i) for i, choice in enumerate(choices)]
    chart = Chart("Share with a wrong step, by choice and round", round_names(rounds), bars, "bars")
    header = ("Round", "Choice", "Trajectories", "With a wrong step", "Share")
    note = (
        "The paper measures what the choice does to the policy: pass@1 on MATH after SFT on "
        f"{_listed({CHOICES[name]: value for name, value in paper.SFT_CHOICE.items()})} (Table 7)."
    )
    return Section("wrong-steps", title, lead, header, tuple(rows), chart, note, num_text_columns=2)


def _listed(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {percent(value)}" for name, value in figures.items())
