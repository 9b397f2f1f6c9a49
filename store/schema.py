"""The tables of a run: every column with its type and one sentence.

What the paper's pipeline hands from step to step (Sections 3.2 to 3.4), kept so that any preference pair can be
followed back to its nodes, their runs of the code and the model that wrote them. Times are in seconds, probabilities
in nats. A node is named elsewhere by `node_ref`: `TREE:ID`, the first tree of the problem that holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa  # type: ignore[import-untyped]

STRING, INT, FLOAT, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()


@dataclass(frozen=True, slots=True)
class Column:
    """One column. A timing column says how it went, not what came out: equal runs may differ in it."""

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = False
    timing: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns, the key its rows are sorted by, and where its files lie under a run."""

    name: str
    doc: str
    glob: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable, metadata={"doc": c.doc}) for c in self.columns])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def node_ref(tree: int, node: int) -> str:
    """The name under which other tables refer to a node of a problem."""
    return f"{tree}:{node}"


_RUN = Column("run", STRING, "Name of the run.")
_ROUND = Column("round", INT, "Round of self-evolution, from 1; 0 is the base model, before any round.")
_RECIPE = Column("recipe", STRING, "Hash of the recipe in force.")
_PROBLEM = Column("problem_id", STRING, "The problem: problems.id.")
_QUESTION = Column("question", STRING, "The problem's text.")
_MEAN_Q = Column("mean_q", FLOAT, "Mean Q-value over the steps of the trajectory, the final one included.")
_MIN_Q = Column("min_q", FLOAT, "Lowest Q-value on the trajectory; breaks ties of mean_q.")
_WRONG_STEP = Column(
    "wrong_step",
    BOOL,
    "Whether a step of it is not truly right, whatever its answer; null where unknown.",
    nullable=True,
)

PROBLEMS = Table(
    "problems",
    "What is asked, with its ground truth.",
    "problems/*.parquet",
    ("id",),
    (
        Column("id", STRING, "Hash of the problem's normalised text."),
        _QUESTION,
        Column("answer", STRING, "Ground truth; for a synthetic problem, the answer that its solvers agreed on."),
        Column("level", STRING, "Difficulty: gsm, math, olympiad, or a source's own word."),
        Column("source", STRING, "Where it comes from: a built-in family, or an imported set."),
        Column("synthetic", BOOL, "Whether it was made from another problem and labelled by agreement."),
        Column("structure", STRING, "The generator's structure, by which train and test differ.", nullable=True),
        Column("truth_steps", STRING, "JSON list of true intermediate quantities, where known.", nullable=True),
    ),
)

NODES = Table(
    "nodes",
    "The search trees, one row a node; invalid candidates are kept, their verdict is not ok.",
    "trees/*/*.parquet",
    ("round", "problem_id", "tree", "id"),
    (
        _RUN,
        _ROUND,
        Column("shard", INT, "Shard of the round that searched the problem."),
        _PROBLEM,
        Column("tree", INT, "Which tree of the problem: 0 is the first, later ones have other seeds."),
        Column("seed", INT, "Seed of the tree, below 2**63."),
        Column("id", INT, "Node within its tree; the root is 0."),
        Column("parent", INT, "Id of the parent node; null for the root.", nullable=True),
        Column("depth", INT, "Number of steps from the root."),
        Column("index", INT, "Place among the parent's candidates, in sampling order."),
        Column("kind", STRING, "root, or the kind of step as the step format names it (code, last code, answer)."),
        Column("text", STRING, "The step exactly as the policy generated it, stop marker included."),
        Column("output", STRING, "What the code printed."),
        Column("verdict", STRING, "The verdict on the candidate: ok, exception, time_limit, malformed and so on."),
        Column("error", STRING, "Exception type, message and line; empty unless the code failed."),
        Column("answer", STRING, "Final answer, of a terminal node.", nullable=True),
        Column("terminal", BOOL, "Whether the node holds a final answer."),
        Column("correct", BOOL, "Whether that answer is equivalent to the ground truth.", nullable=True),
        Column("visits", INT, "Visit count N."),
        Column("value_sum", FLOAT, "Sum q of the values backed up through the node."),
        Column("q", FLOAT, "Q-value of the node in this tree: q / N, 0 while N is 0."),
        Column("ppm_score", FLOAT, "Score in [-1, 1] by the PPM, from round 3 on.", nullable=True),
        Column("num_samples", INT, "Equal candidates merged into the node."),
        Column("closed", BOOL, "Whether nothing is left to search below it."),
        Column("dead_end", BOOL, "Whether a rollout found no valid candidate below it, or the maximum depth."),
        Column("rollout", INT, "Rollout that created it, from 0."),
        Column("expanded", BOOL, "Whether candidates were sampled below it."),
        Column("ended", INT, "Last rollout that ended here; null if none did.", nullable=True),
        Column("num_tokens", INT, "Tokens of its text."),
        Column("sampled_tokens", INT, "Tokens the policy generated for all candidates merged into it."),
        Column("prompt_tokens", INT, "Tokens of the prompt it was sampled from."),
        Column("cached_tokens", INT, "Of those, found in the engine's prefix cache, where it tells.", timing=True),
        Column("logprob", FLOAT, "Log-probability of those tokens under the policy, summed, in nats."),
        Column("seconds", FLOAT, "Time its code ran.", timing=True),
        Column("policy_seconds", FLOAT, "From asking for the steps below it to the policy's answer.", timing=True),
        Column("sandbox_seconds", FLOAT, "Until the code of those steps had run, waiting included.", timing=True),
        Column("scorer_seconds", FLOAT, "From asking the PPM for those steps' scores to its answer.", timing=True),
        Column("model", STRING, "Fingerprint of the policy that wrote it."),
        _RECIPE,
    ),
)

TRAJECTORIES = Table(
    "trajectories",
    "Root-to-answer paths of the merged trees.",
    "trajectories/*.parquet",
    ("round", "problem_id", "path"),
    (
        _RUN,
        _ROUND,
        _PROBLEM,
        Column("path", pa.list_(STRING), "The nodes from the first step to the answer, each as TREE:ID."),
        Column("steps", pa.list_(STRING), "The rendered steps, outputs included."),
        Column("answer", STRING, "Final answer."),
        Column("correct", BOOL, "Whether it is equivalent to the ground truth."),
        Column("qs", pa.list_(FLOAT), "Q-values of the steps, after merging."),
        _MEAN_Q,
        _MIN_Q,
        Column("num_steps", INT, "Number of steps."),
        Column("num_tokens", INT, "Tokens the policy generated for its steps."),
        _WRONG_STEP,
        _RECIPE,
    ),
)

SFT = Table(
    "sft",
    "The choice of trajectories: the policy trains on `verified`, the others are there for comparison (Table 7).",
    "sft/*.parquet",
    ("round", "choice", "problem_id", "rank"),
    (
        _RUN,
        _ROUND,
        _PROBLEM,
        _QUESTION,
        Column("response", STRING, "The rendered trajectory, as trained on."),
        Column("choice", STRING, "verified (highest mean Q), rejection (any with a right answer), or random (any)."),
        Column("rank", INT, "Place among the problem's chosen, from 0."),
        Column("node", STRING, "Terminal node of the trajectory, as TREE:ID."),
        Column("correct", BOOL, "Whether its answer is equivalent to the ground truth."),
        _MEAN_Q,
        _MIN_Q,
        Column("num_steps", INT, "Number of steps."),
        Column("num_tokens", INT, "Tokens the policy generated for its steps."),
        _WRONG_STEP,
        _RECIPE,
    ),
)

PAIRS = Table(
    "pairs",
    "Preference pairs for the PPM (Section 3.3).",
    "pairs/*.parquet",
    ("round", "problem_id", "kind", "group_id", "chosen_node", "rejected_node"),
    (
        _RUN,
        _ROUND,
        _PROBLEM,
        Column("kind", STRING, "step: same prefix; trajectory: right against wrong whole trajectories."),
        Column("group_id", STRING, "Pairs of one group share one loss term, 1 / (P M)."),
        _QUESTION,
        Column("prefix", STRING, "Rendered steps before the two; empty for whole trajectories."),
        Column("chosen", STRING, "The rendered better step or trajectory."),
        Column("rejected", STRING, "The rendered worse one."),
        Column(
            "margin",
            FLOAT,
            "Q of the chosen less Q of the rejected; positive between steps, not always between trajectories.",
        ),
        Column("chosen_q", FLOAT, "Q of the chosen; mean Q of a trajectory.", nullable=True),
        Column("rejected_q", FLOAT, "Q of the rejected; mean Q of a trajectory.", nullable=True),
        Column("edit_distance", INT, "Characters to change to make one the other."),
        Column("chosen_node", STRING, "Node of the better one, as TREE:ID."),
        Column("rejected_node", STRING, "Node of the worse one, as TREE:ID."),
        _RECIPE,
    ),
)

EVALUATIONS = Table(
    "evaluations",
    "What each model got right on the held-out problems, one row an attempt.",
    "evaluations/*.parquet",
    ("round", "metric", "num_trajectories", "problem_id", "sample"),
    (
        _RUN,
        _ROUND,
        Column(
            "metric",
            STRING,
            "pass@1, majority, best_of_n, beam, system, system_majority, system_weighted, or ppm_pairs.",
        ),
        Column(
            "num_trajectories",
            INT,
            "Rollouts of the search, or for majority of the search whose tokens it spends; the beam's width; "
            "1 for pass@1.",
        ),
        _PROBLEM,
        Column("sample", INT, "Which attempt, from 0; for ppm_pairs, which of the pairs."),
        Column("level", STRING, "Difficulty of the problem."),
        Column("model", STRING, "Fingerprint of the model or models evaluated."),
        Column("answer", STRING, "Answer given; null where there is none.", nullable=True),
        Column("correct", BOOL, "Whether it is right; for ppm_pairs, whether the better one scored higher."),
        Column("score", FLOAT, "The PPM's score of the answer, or its margin on the pair.", nullable=True),
        Column("num_tokens", INT, "Tokens generated for the answer, discarded candidates included."),
        Column("seconds", FLOAT, "Time it took.", timing=True),
        _RECIPE,
    ),
)

ROUNDS = Table(
    "rounds",
    "What each phase of each round cost.",
    "rounds/*.parquet",
    ("round", "phase"),
    (
        _RUN,
        _ROUND,
        Column(
            "phase",
            STRING,
            "Part of the round: synthesis, search, extraction, pairs, sft, ppm, heldout, evaluation.",
        ),
        Column("seconds", FLOAT, "Wall time.", timing=True),
        Column("num_tokens", INT, "Tokens generated, or trained on."),
        Column("peak_memory_bytes", INT, "Peak resident memory.", timing=True),
        Column("counts", STRING, "JSON object of what was made: how many problems, nodes, pairs and so on."),
        _RECIPE,
    ),
)

TABLES: dict[str, Table] = {
    table.name: table for table in (PROBLEMS, NODES, TRAJECTORIES, SFT, PAIRS, EVALUATIONS, ROUNDS)
}

#: Columns that say how a run went, not what came out of it: determinism checks leave them aside.
TIMING_COLUMNS: frozenset[str] = frozenset(c.name for t in TABLES.values() for c in t.columns if c.timing)

#: Columns that say where a row was made: they differ with the run's name and the number of shards.
PLACEMENT_COLUMNS: frozenset[str] = frozenset({"run", "shard"})
