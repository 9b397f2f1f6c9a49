-- How do policy (System 1), majority voting and search with the PPM (System 2) compare, and at what cost? (Tables 5, 6)
SELECT
    round,
    metric,
    num_trajectories,
    level,
    count(DISTINCT problem_id) AS num_problems,
    100.0 * avg(correct::INT) AS accuracy,
    avg(num_tokens) AS mean_tokens
FROM (
    SELECT round, metric, num_trajectories, level, problem_id, correct, num_tokens FROM evaluations
    UNION ALL
    SELECT round, metric, num_trajectories, 'all', problem_id, correct, num_tokens FROM evaluations
)
WHERE metric <> 'ppm_pairs'
GROUP BY round, metric, num_trajectories, level
ORDER BY
    round,
    list_position(['pass@1', 'majority', 'best_of_n', 'beam', 'system', 'system_majority', 'system_weighted'], metric) NULLS LAST, metric,
    num_trajectories, level_rank(level), level;
