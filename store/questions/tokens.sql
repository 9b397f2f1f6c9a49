-- How many tokens and steps does a trajectory have, by round and level? (Table 9)
SELECT
    round,
    level,
    count(*) AS num_trajectories,
    avg(num_tokens) AS mean_tokens,
    avg(num_tokens) FILTER (correct) AS mean_tokens_correct,
    avg(num_steps) AS mean_steps
FROM (
    SELECT t.*, if(p.synthetic, 'synthetic', coalesce(p.level, 'unknown')) AS level
    FROM trajectories AS t LEFT JOIN problems AS p ON p.id = t.problem_id
)
GROUP BY round, level
ORDER BY round, level_rank(level), level;
