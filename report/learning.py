"""What the system learned: coverage, policy, system, PPM, and the steps behind right answers.

Section 4: Tables 2 to 8, with the paper's figures beside them.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from report import paper
from report.charts import Series, bar_chart, line_chart
from report.section import Ask, Section, count, levels_of, percent, round_names, rounds_of

STAND_IN = "a rule-based writer of steps that makes mistakes at stated rates, the stand-in for the paper's 236B model"


def coverage(ask: Ask) -> Section:
    title, lead = "Coverage", "Share of the problems for which the round's search found a right answer."
    frame = ask("coverage")
    if frame.is_empty():
        return Section("coverage", title, lead, missing="No search trees yet: the first round's search makes them.")
    levels = levels_of(frame)
    header, columns = ["Round", "Problems"], []
    for level in levels:
        header += [level, *([f"{level}, paper"] if level in paper.COVERAGE else [])]
    rounds = rounds_of(frame)
    for number in rounds:
        ours = {row["level"]: row for row in frame.filter(round=number).to_dicts()}
        cells = [str(number), str(ours["all"]["num_problems"]) if "all" in ours else "–"]
        for level in levels:
            cells.append(percent(ours[level]["coverage"]) if level in ours else "–")
            if level in paper.COVERAGE:
                cells.append(percent(paper.COVERAGE[level].get(number)))
        columns.append(tuple(cells))
    lines = []
    for colour, level in enumerate(levels):
        known = dict(frame.filter(level=level).select("round", "coverage").iter_rows())
        lines.append(Series(level, [known.get(number) for number in rounds], colour))
        if level in paper.COVERAGE:
            theirs = [paper.COVERAGE[level].get(number) for number in rounds]
            lines.append(Series(f"{level}, paper", theirs, colour, reference=True))
    chart = line_chart("Coverage by level and round", round_names(rounds), lines)
    note = "Paper: Table 2, 747k problems. Synthetic problems are a level of their own and not part of “all”."
    by_rules = ask("searchers").filter(model="rules")["round"].to_list()
    if by_rules:
        note += f" Round {by_rules[0]} was searched with {STAND_IN}."
    return Section("coverage", title, lead, tuple(header), tuple(columns), (chart,), note)


def pass_at_1(ask: Ask) -> Section:
    title = "Policy pass@1"
    lead = "How often the policy alone is right at its first try on the held-out problems; row 0 is the base model."
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
    lines.append(Series("MATH, paper", [paper.PASS_AT_1.get(n) for n in rounds], 0, reference=True))
    chart = line_chart("Policy pass@1 by round", round_names(rounds), lines)
    header = ("Round", "Problems", *levels, "MATH, paper")
    return Section("policy", title, lead, header, tuple(rows), (chart,), "Paper: Table 3, on MATH.")


def systems(ask: Ask) -> Section:
    title = "Policy, majority and system"
    lead = (
        "System 1 (the policy alone), majority voting, and System 2 (search with the PPM) on the held-out problems, "
        "with the tokens each spends on a problem. A majority of the system votes over its own trajectories."
    )
    frame = ask("accuracy").filter(pl.col("metric") != "pass@1")
    if frame.is_empty():
        return Section("system", title, lead, missing="No evaluation of the system yet: a round's evaluation makes it.")
    frame = ask("accuracy")
    levels, rounds = levels_of(frame), rounds_of(frame)
    keys = frame.select("round", "metric", "num_trajectories").unique(maintain_order=True).rows()
    known = {(r["round"], r["metric"], r["num_trajectories"], r["level"]): r for r in frame.to_dicts()}
    rows = []
    for key in keys:
        whole = known[*key, "all"]
        cells = [str(key[0]), METRICS.get(key[1], key[1]), str(key[2])]
        cells += [percent(known[*key, level]["accuracy"]) if (*key, level) in known else "–" for level in levels]
        theirs = paper.SYSTEM if key[1] == "system" else paper.PASS_AT_1 if key[1] == "pass@1" else {}
        rows.append((*cells, percent(theirs.get(key[0])), count(whole["mean_tokens"])))
    lines = []
    methods = frame.select("metric", "num_trajectories").unique(maintain_order=True).rows()
    for colour, method in enumerate(methods):
        values = [known.get((n, *method, "all"), {}).get("accuracy") for n in rounds]
        lines.append(Series(_method(*method), values, colour))
        if method[0] == "system" and not any(line.reference for line in lines):
            lines.append(Series("system, paper", [paper.SYSTEM.get(n) for n in rounds], colour, reference=True))
    chart = line_chart("Accuracy by round, all levels", round_names(rounds), lines)
    header = ("Round", "Method", "Trajectories", *levels, "MATH, paper", "Tokens a problem")
    note = (
        "Paper: Tables 3 and 6, on MATH; with 64 trajectories the system reaches 90.0 %. "
        f"The system with each reward model: {_listed(paper.REWARD_MODEL)} (Table 8)."
    )
    return Section("system", title, lead, header, tuple(rows), (chart,), note, num_text_columns=2)


METRICS = {
    "pass@1": "policy",
    "majority": "majority, as many tokens",
    "best_of_n": "best of n",
    "beam": "beam search",
    "system": "system",
    "system_majority": "system, majority",
    "system_weighted": "system, weighted majority",
}


def ppm_pairs(ask: Ask) -> Section:
    title, lead = "PPM", "How often the round's PPM scores the better of two held-out steps higher; chance is 50 %."
    frame = ask("ppm_pairs")
    if frame.is_empty():
        missing = "No held-out pairs ranked yet: rounds with a PPM do it where evaluation.pair_problems is above 0."
        return Section("ppm", title, lead, missing=missing)
    rows = [
        (
            str(r["round"]),
            str(r["num_pairs"]),
            percent(r["accuracy"]),
            "–" if r["mean_margin"] is None else f"{r['mean_margin']:+.3f}",
        )
        for r in frame.to_dicts()
    ]
    rounds = rounds_of(frame)
    lines = [Series("pairs ranked rightly", frame["accuracy"].to_list(), 0)]
    lines.append(Series("chance", [50.0] * len(rounds), 5, reference=True))
    chart = line_chart("PPM pair accuracy by round", round_names(rounds), lines)
    note = "The paper measures its PPMs by the system's accuracy instead (Table 4), so there is no figure beside these."
    return Section("ppm", title, lead, ("Round", "Pairs", "Accuracy", "Mean margin"), tuple(rows), (chart,), note)


CHOICES = {
    "every correct": "every right answer",
    "random": "random",
    "rejection": "rejection-sampled",
    "verified": "step-verified",
}


def wrong_steps(ask: Ask) -> Section:
    title = "Right answers with a wrong step"
    lead = (
        "Among chosen trajectories whose answer is right, the share that holds a step which is not truly right: "
        "what step verification is for."
    )
    frame = ask("wrong_steps")
    if frame.is_empty():
        missing = "Not known: no chosen trajectory has its steps checked against the generator's truth."
        return Section("wrong-steps", title, lead, missing=missing)
    rows = [
        (
            str(r["round"]),
            CHOICES.get(r["choice"], r["choice"]),
            str(r["num_trajectories"]),
            str(r["num_wrong_step"]),
            percent(r["share"]),
        )
        for r in frame.to_dicts()
    ]
    rounds = rounds_of(frame)
    known = {(r["round"], r["choice"]): r["share"] for r in frame.to_dicts()}
    choices = frame["choice"].unique(maintain_order=True).to_list()
    bars = [Series(CHOICES.get(c, c), [known.get((n, c)) for n in rounds], i) for i, c in enumerate(choices)]
    chart = bar_chart("Share with a wrong step, by choice and round", round_names(rounds), bars)
    header = ("Round", "Choice", "Trajectories", "With a wrong step", "Share")
    note = (
        "The paper shows what the choice does to the policy: pass@1 on MATH after SFT on "
        f"{_listed({CHOICES[name]: value for name, value in paper.SFT_CHOICE.items()})} (Table 7)."
    )
    return Section("wrong-steps", title, lead, header, tuple(rows), (chart,), note, num_text_columns=2)


def _method(metric: str, num_trajectories: int) -> str:
    name = METRICS.get(metric, metric)
    return name if num_trajectories == 1 else f"{name}, {num_trajectories} trajectories"


def _listed(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {percent(value)}" for name, value in figures.items())
