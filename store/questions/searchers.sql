-- Which models wrote the steps of each round's trees? `rules` is the built-in writer of the bootstrap round.
SELECT DISTINCT round, model
FROM nodes
ORDER BY round, model;
