"""A run of two rounds, so small that every figure in the tests was computed by hand."""

import json
from itertools import count
from pathlib import Path

from store.layout import Run
from store.shards import write_rows

WRITTEN = {"run": "small", "recipe": "r0"}


def problem(id, level, answer, *, synthetic=False):
    return {
        "id": id,
        "question": f"What is {id} < & >?",
        "answer": answer,
        "level": level,
        "source": "test",
        "synthetic": synthetic,
    }


def tree(round, problem_id, answers, *, shard=0, index=0):
    """A root, one code step, one failed step, and a terminal node per (answer, correct, num_samples) in `answers`."""
    ids = count()
    base = {
        **WRITTEN,
        "round": round,
        "shard": shard,
        "problem_id": problem_id,
        "tree": index,
        "seed": 7,
        "output": "",
        "verdict": "ok",
        "error": "",
        "ppm_score": None,
        "num_samples": 1,
        "closed": False,
        "dead_end": False,
        "rollout": 0,
        "expanded": False,
        "num_tokens": 5,
        "sampled_tokens": 5,
        "prompt_tokens": 9,
        "cached_tokens": 4,
        "logprob": -1.0,
        "seconds": 0.25,
        "policy_seconds": 1.5,
        "sandbox_seconds": 0.5,
        "scorer_seconds": 0.25,
        "model": "m1",
        "terminal": False,
    }

    def node(parent, depth, place, kind, text, **more):
        values = {"visits": 0, "value_sum": 0.0, **more}
        q = values["value_sum"] / values["visits"] if values["visits"] else 0.0
        return {
            **base,
            "id": next(ids),
            "parent": parent,
            "depth": depth,
            "index": place,
            "kind": kind,
            "text": text,
            "q": q,
            **values,
        }

    visits, total = len(answers), sum(1.0 if right else -1.0 for _, right, _ in answers)
    rows = [node(None, 0, 0, "root", "", visits=visits, value_sum=total)]
    rows.append(node(0, 1, 0, "code", "<code>\n# one\n<end_of_step>", visits=visits, value_sum=total))
    rows.append(
        node(0, 1, 1, "code", "<code>\n1/0\n<end_of_step>", verdict="exception", error="ZeroDivisionError: line 1")
    )
    for place, (answer, right, samples) in enumerate(answers):
        text = f"<answer>\\boxed{{{answer}}}<end_of_answer>"
        value = 1.0 if right else -1.0
        rows.append(
            node(
                1,
                2,
                place,
                "answer",
                text,
                answer=answer,
                terminal=True,
                correct=right,
                visits=1,
                value_sum=value,
                num_samples=samples,
                closed=True,
            )
        )
    return rows


def trajectory(round, problem_id, path, correct, *, wrong_step, num_tokens):
    return {
        **WRITTEN,
        "round": round,
        "problem_id": problem_id,
        "path": path,
        "steps": ["a", "b"],
        "answer": "1",
        "correct": correct,
        "qs": [0.5, 1.0],
        "mean_q": 0.75,
        "min_q": 0.5,
        "num_steps": 2,
        "num_tokens": num_tokens,
        "wrong_step": wrong_step,
    }


def chosen(round, choice, wrong):
    """SFT rows with a right answer: one per flag of `wrong`, which says whether the trajectory has a wrong step."""
    return [
        {
            **WRITTEN,
            "round": round,
            "problem_id": "g1",
            "question": "q",
            "response": "r",
            "choice": choice,
            "rank": rank,
            "node": f"0:{rank}",
            "correct": True,
            "mean_q": 1.0,
            "min_q": 1.0,
            "num_steps": 2,
            "num_tokens": 10,
            "wrong_step": flag,
        }
        for rank, flag in enumerate(wrong)
    ]


def evaluation(round, metric, right, *, num_tokens, num_trajectories=1):
    levels = ("gsm", "gsm", "math", "olympiad", "olympiad")
    return [
        {
            **WRITTEN,
            "round": round,
            "metric": metric,
            "num_trajectories": num_trajectories,
            "problem_id": f"t{place}",
            "sample": 0,
            "level": level,
            "model": "m1",
            "answer": "1",
            "correct": bool(flag),
            "score": 0.5,
            "num_tokens": num_tokens,
            "seconds": 0.5,
        }
        for place, (level, flag) in enumerate(zip(levels, right, strict=False))
    ]


SEARCHED = {
    "solved": 2, "policy_prompt_tokens": 4000, "policy_cached_tokens": 3000, "policy_generated_tokens": 1234,
    "policy_busy_ms": 8400, "ppm_prompt_tokens": 1000, "ppm_cached_tokens": 900, "ppm_busy_ms": 2100,
}  # fmt: skip


def phase(round, name, seconds, num_tokens, **counts):
    return {
        **WRITTEN,
        "round": round,
        "phase": name,
        "seconds": seconds,
        "num_tokens": num_tokens,
        "peak_memory_bytes": 3 * 2**30,
        "counts": json.dumps(counts),
    }


def build(root: Path | str) -> Run:
    """Coverage of all / gsm / math / olympiad: 50 / 100 / 0 / 0 % in round 1, 75 / 100 / 100 / 0 % in round 2."""
    run = Run(root)
    levels = {"g1": "gsm", "g2": "gsm", "m1": "math", "o1": "olympiad"}
    write_rows(run.problems("train"), "problems", [problem(id, level, "1") for id, level in levels.items()])
    write_rows(run.problems("synthetic"), "problems", [problem("s1", "gsm", "1", synthetic=True)])
    right, wrong = ("1", True, 1), ("2", False, 1)
    write_rows(run.nodes(1, 0), "nodes", tree(1, "g1", [right, wrong]) + tree(1, "g2", [right]))
    write_rows(
        run.nodes(1, 1),
        "nodes",
        tree(1, "m1", [("7", False, 3), ("8", False, 1)], shard=1) + tree(1, "o1", [], shard=1),
    )
    rows = tree(2, "g1", [right]) + tree(2, "g2", [right]) + tree(2, "m1", [right, wrong]) + tree(2, "s1", [right])
    # Two trees of the olympiad problem: 3 of its 4 sampled answers are 12.
    rows += tree(2, "o1", [("12", False, 2), ("5", False, 1)]) + tree(2, "o1", [("12", False, 1)], index=1)
    write_rows(run.nodes(2, 0), "nodes", rows)
    write_rows(
        run.trajectories(1),
        "trajectories",
        [
            trajectory(1, "g1", ["0:1", "0:3"], True, wrong_step=False, num_tokens=20),
            trajectory(1, "g1", ["0:1", "0:4"], False, wrong_step=True, num_tokens=40),
            trajectory(1, "g2", ["0:1", "0:3"], True, wrong_step=True, num_tokens=30),
            trajectory(1, "m1", ["0:1", "0:3"], False, wrong_step=None, num_tokens=60),
        ],
    )
    sft = chosen(1, "verified", [1, 0, 0, 0]) + chosen(1, "random", [1, 1, 0, 0])
    sft += chosen(1, "rejection", [1, 1, 1, 0, 0, 0, 0, 0])
    write_rows(run.sft(1), "sft", [{**row, "wrong_step": bool(row["wrong_step"])} for row in sft])
    write_rows(run.evaluations(0), "evaluations", evaluation(0, "pass@1", [1, 0, 0, 0], num_tokens=10))
    for round, policy, pairs in ((1, [1, 1, 0, 0], [1, 1, 1, 0, 0]), (2, [1, 1, 1, 0], [1, 1, 1, 1, 0])):
        rows = evaluation(round, "pass@1", policy, num_tokens=10) + evaluation(round, "ppm_pairs", pairs, num_tokens=0)
        if round == 2:
            rows += evaluation(2, "system", [1, 1, 1, 1], num_tokens=85, num_trajectories=8)
            rows += evaluation(2, "majority", [1, 1, 1, 0], num_tokens=80, num_trajectories=8)
        write_rows(run.evaluations(round), "evaluations", rows)
    write_rows(run.rounds(1, "search"), "rounds", [phase(1, "search", 10.5, 1234, **SEARCHED)])
    write_rows(run.rounds(1, "sft"), "rounds", [phase(1, "sft", 61.0, 5678)])
    return run
