-- Which problems did the last round not solve, and which answer was most frequent? (Section 4.1: often the label is wrong)
-- Answers are equal if their texts are equal. A node counts one vote for each candidate merged into it.
WITH last AS (
    SELECT * FROM outcomes WHERE round = (SELECT max(round) FROM nodes) AND num_right = 0
),
votes AS (
    SELECT problem_id, answer, sum(num_samples)::BIGINT AS num_votes
    FROM nodes SEMI JOIN last USING (round, problem_id)
    WHERE terminal AND answer IS NOT NULL
    GROUP BY problem_id, answer
),
majority AS (
    SELECT
        problem_id,
        arg_max(answer, (num_votes, answer)) AS majority_answer,
        max(num_votes) AS num_votes,
        sum(num_votes)::BIGINT AS num_answers
    FROM votes GROUP BY problem_id
)
SELECT
    problem_id, level, question, labelled_answer, majority_answer,
    coalesce(num_votes, 0) AS num_votes, coalesce(num_answers, 0) AS num_answers
FROM last LEFT JOIN majority USING (problem_id)
ORDER BY coalesce(num_votes / num_answers, 0) DESC, num_answers DESC, problem_id;
