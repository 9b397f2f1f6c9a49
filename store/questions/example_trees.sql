-- Which small trees show a search well? For each level of the last round, one tree with a right answer.
-- Trees that also have a wrong answer or a failure come first, then those nearest to 30 nodes.
-- Returns all nodes of each tree, in the order of creation.
WITH trees AS (
    SELECT
        n.problem_id, n.tree, o.level,
        count(*) AS num_nodes,
        bool_or(n.terminal AND NOT n.correct) OR bool_or(n.verdict <> 'ok') AS has_failure
    FROM nodes AS n JOIN outcomes AS o USING (round, problem_id)
    WHERE n.round = (SELECT max(round) FROM nodes)
    GROUP BY n.problem_id, n.tree, o.level
    HAVING bool_or(n.terminal AND n.correct)
),
chosen AS (
    SELECT problem_id, tree, level FROM trees
    QUALIFY row_number() OVER (PARTITION BY level ORDER BY has_failure DESC, abs(num_nodes - 30), problem_id, tree) = 1
)
SELECT
    c.level, p.question, p.answer AS labelled_answer, n.round, n.problem_id, n.tree, n.id, n.parent, n.depth, n.kind,
    n.text, n.output, n.verdict, n.error, n.answer, n.terminal, n.correct, n.visits, n.q, n.ppm_score, n.num_samples,
    n.dead_end
FROM nodes AS n
JOIN chosen AS c USING (problem_id, tree)
LEFT JOIN problems AS p ON p.id = n.problem_id
WHERE n.round = (SELECT max(round) FROM nodes)
ORDER BY level_rank(c.level) DESC, c.level DESC, n.problem_id, n.tree, n.id;
