-- What did engines and sandbox do in each round's search?
SELECT round, seconds, counts
FROM rounds
WHERE phase = 'search'
ORDER BY round;
