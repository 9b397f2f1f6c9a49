-- What did the engines and the sandbox do in each round's search?
SELECT round, seconds, counts
FROM rounds
WHERE phase = 'search'
ORDER BY round;
