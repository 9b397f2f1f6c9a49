-- How many problems of each level have a correct trajectory, by round? (Table 2)
SELECT round, level, num_problems, num_solved, coverage
FROM coverage
ORDER BY round, level_rank(level), level;
