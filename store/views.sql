-- Views over the tables of a run. The questions read them.

-- Sort order of levels: `all` first, `synthetic` last. Order by level_rank(level), level, so that the rest go by name.
CREATE MACRO level_rank(level) AS CASE level WHEN 'all' THEN 0 WHEN 'synthetic' THEN 2 ELSE 1 END;

-- For each problem searched in a round: the number of right and wrong answers, over all its trees.
-- Synthetic problems have a level of their own, so that easy variants do not raise the coverage of the other levels.
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

-- Coverage: problems with at least one correct trajectory (Table 2). The level `all` excludes synthetic problems.
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
