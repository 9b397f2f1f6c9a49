-- How often is the policy right at the first attempt, by round and level? Round 0 is the base model. (Table 3)
SELECT round, level, count(DISTINCT problem_id) AS num_problems, 100.0 * avg(correct::INT) AS accuracy
FROM (
    SELECT round, level, problem_id, correct FROM evaluations WHERE metric = 'pass@1'
    UNION ALL
    SELECT round, 'all', problem_id, correct FROM evaluations WHERE metric = 'pass@1'
)
GROUP BY round, level
ORDER BY round, level_rank(level), level;
