-- How long did the expansions of each round's search wait for the policy, the sandbox and the PPM?
SELECT round,
       count(*) AS expansions,
       sum(policy_seconds) AS policy,
       sum(sandbox_seconds) AS sandbox,
       sum(scorer_seconds) AS scorer
FROM nodes
WHERE policy_seconds > 0
GROUP BY round
ORDER BY round;
