-- Views over the tables of a run, one statement each; the queries stand on them.

-- Levels in order of difficulty, then a source's own words, then what was synthesised.
CREATE MACRO level_rank(level) AS coalesce(list_position(['gsm', 'math', 'olympiad'], level), if(level = 'all', 0, if(level = 'synthetic', 99, 50)));

-- What became of each problem searched in a round: right and wrong answers found, over all its trees.
-- Synthetic problems are a level of their own, so that easy variants do not raise the coverage of the others.
CREATE VIEW outcomes AS
SELECT
    nodes.round,
    nodes.problem_id,
    if(any_value(problems.synthetic), 'synthetic', coalesce(any_value(problems.level), 'unknown')) AS level,
    any_value(problems.question) AS question,
    any_value(problems.answer) AS labelled_answer,
    count(*) FILTER (nodes.terminal AND nodes.correct) AS num_right,
    count(*) FILTER (nodes.terminal AND NOT nodes.correct) AS num_wrong
FROM nodes LEFT JOIN problems ON problems.id = nodes.problem_id
GROUP BY nodes.round, nodes.problem_id;

-- Coverage: problems with at least one correct trajectory (Table 2). The level `all` leaves synthetic ones out.
CREATE VIEW coverage AS
SELECT
    round,
    level,
    count(*) AS num_problems,
    count(*) FILTER (num_right > 0) AS num_solved,
    100.0 * count(*) FILTER (num_right > 0) / count(*) AS coverage
FROM (
    SELECT round, level, num_right FROM outcomes
    UNION ALL
    SELECT round, 'all', num_right FROM outcomes WHERE level <> 'synthetic'
)
GROUP BY round, level;

-- The annotated steps: nodes with their Q-value in their tree, the root, invalid candidates and unvisited nodes left out.
CREATE VIEW q_values AS
SELECT round, problem_id, tree, id, tree || ':' || id AS node, depth, kind, text, answer, correct, visits, q, ppm_score
FROM nodes
WHERE depth > 0 AND visits > 0 AND verdict = 'ok';
