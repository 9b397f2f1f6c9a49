-- Which models wrote the steps of each round's trees? `rules` is the demo's built-in writer.
SELECT DISTINCT round, model
FROM nodes
ORDER BY round, model;
