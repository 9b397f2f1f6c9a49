"""Each question, on a run whose figures were computed by hand."""

import pytest

from rstar.protocols import UserError
from store import questions
from store.catalog import open_catalog
from store.layout import RUN_FORMAT


@pytest.fixture
def ask(small_run):
    with open_catalog(small_run.root) as con:
        yield lambda name: questions.run(con, name).rows()


def test_coverage_counts_problems_with_a_right_answer_and_separates_synthetic_ones(ask):
    assert ask("coverage") == [
        (1, "all", 4, 2, 50.0),
        (1, "gsm", 2, 2, 100.0),
        (1, "math", 1, 0, 0.0),
        (1, "olympiad", 1, 0, 0.0),
        (2, "all", 4, 3, 75.0),
        (2, "gsm", 2, 2, 100.0),
        (2, "math", 1, 1, 100.0),
        (2, "olympiad", 1, 0, 0.0),
        (2, "synthetic", 1, 1, 100.0),
    ]


def test_buckets_are_easy_medium_hard(ask):
    assert ask("buckets") == [
        (1, "gsm", 1, 1, 0),
        (1, "math", 0, 0, 1),
        (1, "olympiad", 0, 0, 1),
        (2, "gsm", 2, 0, 0),
        (2, "math", 0, 1, 0),
        (2, "olympiad", 0, 0, 1),
        (2, "synthetic", 1, 0, 0),
    ]


def test_unsolved_problems_have_the_majority_answer_over_all_their_trees(ask):
    assert ask("unsolved") == [("o1", "olympiad", "What is o1 < & >?", "1", "12", 3, 4)]


def test_the_models_that_searched_are_listed_by_round(ask):
    assert ask("searchers") == [(1, "m1"), (2, "m1")]


def test_cost_lists_phases_in_the_order_of_the_pipeline(ask):
    assert ask("cost") == [(1, "search", 10.5, 1234, 3 * 2**30), (1, "sft", 61.0, 5678, 3 * 2**30)]


def test_wrong_steps_are_counted_by_choice_and_for_right_answers_only(ask):
    assert ask("wrong_steps") == [
        (1, "every correct", 2, 1, 50.0),
        (1, "random", 4, 2, 50.0),
        (1, "rejection", 8, 3, 37.5),
        (1, "verified", 4, 1, 25.0),
    ]


def test_pass_at_1_starts_with_the_base_model(ask):
    overall = [(round, accuracy) for round, level, _, accuracy in ask("pass_at_1") if level == "all"]
    assert overall == [(0, 25.0), (1, 50.0), (2, 75.0)]


def test_accuracy_compares_policy_majority_and_system(ask):
    last = [row[1:] for row in ask("accuracy") if row[0] == 2 and row[3] == "all"]
    assert last == [
        ("pass@1", 1, "all", 4, 75.0, 10.0),
        ("majority", 8, "all", 4, 75.0, 80.0),
        ("system", 8, "all", 4, 100.0, 85.0),
    ]


def test_ppm_pairs_give_an_accuracy_by_round(ask):
    assert ask("ppm_pairs") == [(1, 5, 60.0, 0.5), (2, 5, 80.0, 0.5)]


def test_tokens_are_averaged_over_trajectories(ask):
    assert ask("tokens") == [(1, "gsm", 3, 30.0, 25.0, 2.0), (1, "math", 1, 60.0, None, 2.0)]


def test_example_trees_are_complete_and_have_a_right_answer(ask):
    rows = ask("example_trees")
    assert [(row[0], row[4], row[6]) for row in rows] == [
        *[("synthetic", "s1", node) for node in range(4)],
        *[("math", "m1", node) for node in range(5)],
        *[("gsm", "g1", node) for node in range(4)],
    ]


def test_levels_are_sorted_by_name_between_all_and_synthetic(tmp_path):
    (tmp_path / "recipe.json").write_text(f'{{"format": {RUN_FORMAT}}}')
    with open_catalog(tmp_path) as con:
        levels = "SELECT unnest(['synthetic', 'grade 5', 'unknown', 'all', 'gsm', 'grade 1']) AS level"
        rows = con.sql(f"SELECT level FROM ({levels}) ORDER BY level_rank(level), level").fetchall()
    assert [level for (level,) in rows] == ["all", "grade 1", "grade 5", "gsm", "unknown", "synthetic"]


def test_every_query_starts_with_its_question_and_answers_a_run_without_tables(tmp_path):
    (tmp_path / "recipe.json").write_text(f'{{"format": {RUN_FORMAT}}}')
    with open_catalog(tmp_path) as con:
        for name in questions.names():
            assert questions.text(name).startswith("-- ") and "?" in questions.text(name).splitlines()[0]
            assert questions.run(con, name).height == 0, name


def test_an_unknown_query_is_a_user_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match=r"no query 'covrage'; there are .*coverage"):
        questions.text("covrage")
