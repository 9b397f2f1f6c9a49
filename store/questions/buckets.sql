-- How hard were the problems in each round? easy: all answers in the trees are right; medium: some; hard: none.
SELECT
    round,
    level,
    count(*) FILTER (num_right > 0 AND num_wrong = 0) AS easy,
    count(*) FILTER (num_right > 0 AND num_wrong > 0) AS medium,
    count(*) FILTER (num_right = 0) AS hard
FROM outcomes
GROUP BY round, level
ORDER BY round, level_rank(level), level;
