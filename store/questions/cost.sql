-- What did each phase of each round cost in time, tokens and memory?
SELECT round, phase, seconds, num_tokens, peak_memory_bytes
FROM rounds
ORDER BY round, list_position(['synthesis', 'search', 'extraction', 'pairs', 'sft', 'ppm', 'heldout', 'evaluation'], phase) NULLS LAST, phase;
