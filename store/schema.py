"""The tables of a run: every column with its type and one sentence.

They hold what the steps of the paper's pipeline pass on (Sections 3.2 to 3.4), so that any preference pair can be
traced to its nodes, to the output of their code and to the model that wrote them. Times are in seconds,
log-probabilities in nats. Other tables refer to a node as `TREE:ID` (`node_ref`), where TREE is the first tree of the
problem that holds the node.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa  # type: ignore[import-untyped]

STRING, INT, FLOAT, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()


@dataclass(frozen=True, slots=True)
class Column:
    """One column. A timing column records how the run went, not its results: equal runs may differ in it."""

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = False
    timing: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns, the key that sorts its rows, and the glob of its files in a run's folder."""

    name: str
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
    """The name by which other tables refer to a node of a problem."""
    return f"{tree}:{node}"


_RUN = Column("run", STRING, "Name of the run.")
_ROUND = Column("round", INT, "Round of self-evolution, from 1; 0 is the base model, before the first round.")
_RECIPE = Column("recipe", STRING, "Hash of the run's recipe.")
_PROBLEM = Column("problem_id", STRING, "The problem: problems.id.")
_QUESTION = Column("question", STRING, "The problem's text.")
_MEAN_Q = Column("mean_q", FLOAT, "Mean Q-value of the trajectory's steps, including the final one.")
_MIN_Q = Column("min_q", FLOAT, "Lowest Q-value on the trajectory; breaks ties of mean_q.")
_WRONG_STEP = Column(
    "wrong_step",
    BOOL,
    "Whether the trajectory has a wrong step, even if its answer is right; null if unknown.",
    nullable=True,
)

#: The questions with their ground truth.
PROBLEMS = Table(
    "problems",
    "problems/*.parquet",
    ("id",),
    (
        Column("id", STRING, "Hash of the problem's normalised text."),
        _QUESTION,
        Column("answer", STRING, "Ground truth; for a synthetic problem, the most frequent answer of its solutions."),
        Column("level", STRING, "Level of difficulty, as the source names it, such as gsm, math or olympiad."),
        Column("source", STRING, "Where the problem comes from: a built-in family or an imported data set."),
        Column("synthetic", BOOL, "Whether the problem was made from another one and labelled by agreement."),
        Column("structure", STRING, "The generator's structure; train and test have different ones.", nullable=True),
        Column("truth_steps", STRING, "JSON list of the true intermediate quantities, if known.", nullable=True),
    ),
)

#: The search trees, one row per node. Invalid candidates are rows too; their verdict is not ok.
NODES = Table(
    "nodes",
    "trees/*/*.parquet",
    ("round", "problem_id", "tree", "id"),
    (
        _RUN,
        _ROUND,
        Column("shard", INT, "Shard of the round that searched the problem."),
        _PROBLEM,
        Column("tree", INT, "Number of the problem's tree, from 0; each tree has another seed."),
        Column("seed", INT, "Seed of the tree, below 2**63."),
        Column("id", INT, "Number of the node in its tree; the root is 0."),
        Column("parent", INT, "Id of the parent node; null for the root.", nullable=True),
        Column("depth", INT, "Number of steps from the root."),
        Column("index", INT, "Position among the parent's candidates, in sampling order."),
        Column(
            "kind",
            STRING,
            "root, malformed, or the step format's kind of step; in mathematics code, last_code or answer.",
        ),
        Column("text", STRING, "The step exactly as the policy generated it, including the stop marker."),
        Column("output", STRING, "What the code printed."),
        Column("verdict", STRING, "ok, exception, time_limit, memory_limit, output_limit, forbidden or malformed."),
        Column("error", STRING, "Exception type, message and line; empty unless the code failed."),
        Column("answer", STRING, "Final answer; null unless the node is terminal.", nullable=True),
        Column("terminal", BOOL, "Whether the node holds a final answer."),
        Column("correct", BOOL, "Whether that answer is equivalent to the ground truth.", nullable=True),
        Column("visits", INT, "Visit count N."),
        Column("value_sum", FLOAT, "Sum of the values backed up through the node."),
        Column("q", FLOAT, "Q-value of the node in this tree: value_sum / visits, or 0 without visits."),
        Column("ppm_score", FLOAT, "Score in [-1, 1] by the PPM, if the round searched with one.", nullable=True),
        Column("num_samples", INT, "Number of equal candidates merged into the node."),
        Column("closed", BOOL, "Whether nothing is left to search below the node."),
        Column("dead_end", BOOL, "Whether a rollout ended here without a valid candidate or at the maximum depth."),
        Column("rollout", INT, "Rollout that created the node, from 0."),
        Column("expanded", BOOL, "Whether candidates were sampled below the node."),
        Column("ended", INT, "Last rollout that ended here; null if none did.", nullable=True),
        Column("num_tokens", INT, "Tokens of the text."),
        Column("sampled_tokens", INT, "Tokens that the policy generated for all candidates merged into the node."),
        Column("prompt_tokens", INT, "Tokens of the prompt that the node was sampled from."),
        Column("cached_tokens", INT, "Prompt tokens from the engine's prefix cache, if it reports them.", timing=True),
        Column("logprob", FLOAT, "Sum of the log-probabilities of the text's tokens under the policy, in nats."),
        Column("seconds", FLOAT, "Run time of the code.", timing=True),
        Column("policy_seconds", FLOAT, "Time that the policy took to propose the steps below the node.", timing=True),
        Column("sandbox_seconds", FLOAT, "Time until the code of those steps had run, including waiting.", timing=True),
        Column("scorer_seconds", FLOAT, "Time that the PPM took to score those steps.", timing=True),
        Column("model", STRING, "Fingerprint of the policy that wrote the step."),
        _RECIPE,
    ),
)

#: Root-to-answer paths of the merged trees.
TRAJECTORIES = Table(
    "trajectories",
    "trajectories/*.parquet",
    ("round", "problem_id", "path"),
    (
        _RUN,
        _ROUND,
        _PROBLEM,
        Column("path", pa.list_(STRING), "The nodes from the first step to the answer, each as TREE:ID."),
        Column("steps", pa.list_(STRING), "The rendered steps, including their outputs."),
        Column("answer", STRING, "Final answer."),
        Column("correct", BOOL, "Whether that answer is equivalent to the ground truth."),
        Column("qs", pa.list_(FLOAT), "Q-values of the steps, after merging."),
        _MEAN_Q,
        _MIN_Q,
        Column("num_steps", INT, "Number of steps."),
        Column("num_tokens", INT, "Tokens the policy generated for its steps."),
        _WRONG_STEP,
        _RECIPE,
    ),
)

#: The trajectories chosen for SFT. The policy trains on `verified`; the other choices are for comparison (Table 7).
SFT = Table(
    "sft",
    "sft/*.parquet",
    ("round", "choice", "problem_id", "rank"),
    (
        _RUN,
        _ROUND,
        _PROBLEM,
        _QUESTION,
        Column("response", STRING, "The rendered trajectory, as the policy is trained on it."),
        Column("choice", STRING, "verified (highest mean Q), rejection (any with a right answer), or random (any)."),
        Column("rank", INT, "Rank among the problem's chosen trajectories, from 0."),
        Column("node", STRING, "Terminal node of the trajectory, as TREE:ID."),
        Column("correct", BOOL, "Whether the answer is equivalent to the ground truth."),
        _MEAN_Q,
        _MIN_Q,
        Column("num_steps", INT, "Number of steps."),
        Column("num_tokens", INT, "Tokens the policy generated for its steps."),
        _WRONG_STEP,
        _RECIPE,
    ),
)

#: Preference pairs for the PPM (Section 3.3).
PAIRS = Table(
    "pairs",
    "pairs/*.parquet",
    ("round", "problem_id", "kind", "group_id", "chosen_node", "rejected_node"),
    (
        _RUN,
        _ROUND,
        _PROBLEM,
        Column(
            "kind", STRING, "step: two steps after the same prefix; trajectory: a right and a wrong whole trajectory."
        ),
        Column("group_id", STRING, "Pairs of one group share one loss term, 1 / (P M)."),
        _QUESTION,
        Column("prefix", STRING, "Rendered steps before both; empty for whole trajectories."),
        Column("chosen", STRING, "The rendered better step or trajectory."),
        Column("rejected", STRING, "The rendered worse one."),
        Column(
            "margin",
            FLOAT,
            "Q of the chosen minus Q of the rejected; always positive for steps, not always for trajectories.",
        ),
        Column("chosen_q", FLOAT, "Q of the chosen; mean Q of a trajectory.", nullable=True),
        Column("rejected_q", FLOAT, "Q of the rejected; mean Q of a trajectory.", nullable=True),
        Column("edit_distance", INT, "Edit distance between the two, in characters."),
        Column("chosen_node", STRING, "Node of the better one, as TREE:ID."),
        Column("rejected_node", STRING, "Node of the worse one, as TREE:ID."),
        _RECIPE,
    ),
)

#: What each model got right on the held-out problems, one row per attempt.
EVALUATIONS = Table(
    "evaluations",
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
            "Rollouts of the search; for majority, of the search with the same number of tokens; the beam's width; "
            "1 for pass@1.",
        ),
        _PROBLEM,
        Column("sample", INT, "Number of the attempt, from 0; for ppm_pairs, number of the pair."),
        Column("level", STRING, "Level of the problem."),
        Column("model", STRING, "Fingerprint of the evaluated model or models."),
        Column("answer", STRING, "The model's answer; null if it gave none.", nullable=True),
        Column("correct", BOOL, "Whether the answer is right; for ppm_pairs, whether the better one scored higher."),
        Column("score", FLOAT, "The PPM's score of the answer, or its margin on the pair.", nullable=True),
        Column("num_tokens", INT, "Tokens generated for the answer, including discarded candidates."),
        Column("seconds", FLOAT, "Time that the attempt took.", timing=True),
        _RECIPE,
    ),
)

#: What each phase of each round cost.
ROUNDS = Table(
    "rounds",
    "rounds/*.parquet",
    ("round", "phase"),
    (
        _RUN,
        _ROUND,
        Column(
            "phase",
            STRING,
            "Phase of the round: synthesis, search, extraction, pairs, sft, ppm, heldout, evaluation.",
        ),
        Column("seconds", FLOAT, "Wall time.", timing=True),
        Column("num_tokens", INT, "Tokens generated, or trained on."),
        Column("peak_memory_bytes", INT, "Peak resident memory.", timing=True),
        Column("counts", STRING, "JSON object of counts: problems, nodes, pairs, etc."),
        _RECIPE,
    ),
)

TABLES: dict[str, Table] = {
    table.name: table for table in (PROBLEMS, NODES, TRAJECTORIES, SFT, PAIRS, EVALUATIONS, ROUNDS)
}

#: Columns that record how a run went, not its results. Comparisons of runs ignore them.
TIMING_COLUMNS: frozenset[str] = frozenset(c.name for t in TABLES.values() for c in t.columns if c.timing)

#: Columns that record where a row was made: they depend on the run's name and the number of shards.
PLACEMENT_COLUMNS: frozenset[str] = frozenset({"run", "shard"})
