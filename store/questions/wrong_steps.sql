-- How many trajectories with a right answer have a wrong step, by the way they were chosen? (Sections 3.2 and 3.4)
-- `every correct` counts all correct trajectories, as a uniform choice among them would.
SELECT
    round,
    choice,
    count(*) AS num_trajectories,
    count(*) FILTER (wrong_step) AS num_wrong_step,
    100.0 * count(*) FILTER (wrong_step) / count(*) AS share
FROM (
    SELECT round, choice, wrong_step FROM sft WHERE correct AND wrong_step IS NOT NULL
    UNION ALL
    SELECT round, 'every correct', wrong_step FROM trajectories WHERE correct AND wrong_step IS NOT NULL
)
GROUP BY round, choice
ORDER BY round, list_position(['every correct', 'random', 'rejection', 'verified'], choice) NULLS LAST, choice;
