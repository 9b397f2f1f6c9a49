-- What did the sandbox do in each round's search?
SELECT round, counts
FROM rounds
WHERE phase = 'search'
ORDER BY round;
