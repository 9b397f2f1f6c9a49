-- How often does each round's PPM score the better step of a held-out pair higher? (compare with Table 4)
SELECT
    round,
    count(*) AS num_pairs,
    100.0 * avg(correct::INT) AS accuracy,
    avg(score) AS mean_margin
FROM evaluations
WHERE metric = 'ppm_pairs'
GROUP BY round
ORDER BY round;
