"""Trajectories, their Q-values and the choice of SFT data, computed by hand."""

from rstar.trajectories import (
    Trajectory,
    label_is_suspect,
    random_choice,
    rejection_choice,
    sft_choice,
    trajectories,
)


def trajectory(terminal_id, qs, correct=True):
    ids = (*range(1, len(qs)), terminal_id)
    return Trajectory(("s",) * len(qs), ids, "42", correct, tuple(qs), sum(qs) / len(qs), min(qs), 0)


async def test_mean_q_is_over_all_steps_including_the_final_one(letters):
    """Rollouts: a/c right; then b/e wrong; then a/d/g right. So Q(a) = 1, Q(a/d) = 1, Q(b) = -1."""
    policy = {"": "ab", "a": "cd", "b": "ef", "a/d": "gh"}
    tree = await letters(policy, {"a/c": "42", "b/e": "7", "a/d/g": "41"}, num_rollouts=3)
    found = trajectories(tree)
    assert [(each.answer, each.correct, each.qs) for each in found] == [
        ("42", True, (0.0, 1.0)),
        ("41", False, (0.0, -1.0, -1.0)),
        ("7", False, (-1.0, -1.0)),
    ]
    assert [each.mean_q for each in found] == [0.5, -2 / 3, -1.0]
    assert [each.min_q for each in found] == [0.0, -1.0, -1.0]
    first, second = "<code>\n# a\npass\n<end_of_step>", "\n# d\npass\n<end_of_step>"
    assert found[1].text == f"{first}{second}\n<answer> g: \\boxed{{41}}\n<end_of_answer>"


async def test_dead_ends_are_not_trajectories(letters):
    tree = await letters({"": "ab", "b": "c"}, {"b/c": "42"}, num_rollouts=2)
    assert tree.root.visits == 2
    assert [each.answer for each in trajectories(tree)] == ["42"]


def test_the_two_correct_trajectories_with_the_highest_mean_q_are_chosen():
    best, wrong, second, third = (
        trajectory(4, [0.9, 1.0]),
        trajectory(3, [1.0, 1.0], correct=False),
        trajectory(2, [0.5, 1.0]),
        trajectory(1, [0.4, 1.0]),
    )
    assert sft_choice([third, second, wrong, best]) == [best, second]
    assert sft_choice([third, best], num_chosen=1) == [best]
    assert sft_choice([wrong]) == []


def test_ties_go_to_the_higher_minimum_q_then_to_fewer_steps_then_to_the_first_found():
    low = trajectory(3, [0.0, 1.0])
    high = trajectory(7, [0.5, 0.5])
    long = trajectory(5, [0.5, 0.5, 0.5])
    early = trajectory(6, [0.5, 0.5])
    assert sft_choice([low, long, high, early], num_chosen=4) == [early, high, long, low]


def test_a_label_is_suspect_if_less_than_half_of_the_trajectories_are_correct():
    right, wrong = trajectory(1, [1.0]), trajectory(2, [-1.0], correct=False)
    assert label_is_suspect([right, wrong, wrong])
    assert not label_is_suspect([right, wrong])
    assert not label_is_suspect([right])
    assert label_is_suspect([right, wrong], min_correct=0.6)


def test_the_alternatives_choose_at_random_among_all_or_among_the_correct():
    pool = [trajectory(id, [0.1 * id], correct=id % 2 == 0) for id in range(1, 9)]
    assert {each.correct for seed in range(20) for each in random_choice(pool, seed=seed)} == {True, False}
    choices = [rejection_choice(pool, seed=seed) for seed in range(20)]
    assert {each.terminal_id for choice in choices for each in choice} == {2, 4, 6, 8}
    assert all(len(choice) == 2 for choice in choices)
    assert rejection_choice(pool, seed=3) == rejection_choice(pool, seed=3)
    assert len(random_choice(pool[:1], seed=0)) == 1
