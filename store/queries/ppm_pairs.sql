-- How often does each round's PPM score the better step of a held-out pair higher, by whose mistakes they are? (beside Table 4)
SELECT
    round,
    mistakes_of,
    count(*) AS num_pairs,
    100.0 * avg(correct::INT) AS accuracy,
    avg(score) AS mean_margin
FROM evaluations
WHERE metric = 'ppm_pairs'
GROUP BY round, mistakes_of
ORDER BY round, mistakes_of;
