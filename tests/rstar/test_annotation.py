"""Initial and terminal values under each annotation, computed by hand."""

import pytest

from rstar.annotation import Annotation


@pytest.mark.parametrize(
    ("annotation", "initial", "right", "wrong"),
    [
        (Annotation.TERMINAL, (0, 0.0), 1.0, -1.0),
        (Annotation.PPM, (1, 0.25), 1.0, -1.0),
        (Annotation.INFERENCE, (1, 0.25), 0.25, 0.25),
    ],
)
def test_initial_and_terminal_values_follow_the_annotation(annotation, initial, right, wrong):
    assert annotation.initial_value(0.25) == initial
    assert annotation.terminal_value(correct=True, score=0.25) == right
    assert annotation.terminal_value(correct=False, score=0.25) == wrong


def test_a_missing_score_is_not_taken_for_zero():
    with pytest.raises(ValueError, match="score"):
        Annotation.PPM.initial_value(None)
