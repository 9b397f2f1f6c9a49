"""A journal keeps whole lines, for one owner and one writer."""

import time

import pytest

from rstar.journal import JournalledPolicy, JournalledScorer, journal_key
from rstar.protocols import Proposal, UserError
from store.journal import FileJournal, discard, local_path

OWNER = {"recipe": "r", "model": "m", "round": 1, "shard": 0}
KEY, OTHER = journal_key("a"), journal_key("b")


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "trees" / "shard.jsonl")


def test_a_put_value_is_returned_at_once_and_after_reopening(url):
    value = [["text\n\ud800 \\", 3, -0.1, 7], [1e-300]]
    with FileJournal(url, OWNER) as journal:
        journal.put(KEY, value)
        assert journal.get(KEY) == value
    with FileJournal(url, OWNER) as journal:
        assert (journal.get(KEY), journal.get(OTHER)) == (value, None)


@pytest.mark.parametrize("owner", [OWNER | {"recipe": "s"}, OWNER | {"model": "n"}, OWNER | {"round": 2}])
def test_a_journal_of_another_owner_is_emptied(url, owner):
    with FileJournal(url, OWNER) as journal:
        journal.put(KEY, [1])
    with FileJournal(url, owner) as journal:
        assert journal.get(KEY) is None
    with FileJournal(url, OWNER) as journal:
        assert journal.get(KEY) is None


def test_an_incomplete_last_line_is_removed_wherever_it_ends(url):
    with FileJournal(url, OWNER) as journal:
        journal.put(KEY, ["first"])
        journal.put(OTHER, ["second"])
    whole = local_path(url).read_bytes()
    lengths = [len(line) for line in whole.splitlines(keepends=True)]
    for length in range(len(whole)):
        local_path(url).write_bytes(whole[:length])
        with FileJournal(url, OWNER) as journal:
            assert journal.get(KEY) == (["first"] if length >= sum(lengths[:2]) else None)
            assert journal.get(OTHER) is None
            journal.put(OTHER, ["again"])
        with FileJournal(url, OWNER) as journal:
            assert journal.get(OTHER) == ["again"]


def test_a_line_that_is_not_json_is_ignored(url):
    with FileJournal(url, OWNER) as journal:
        journal.put(KEY, ["first"])
        journal.put(OTHER, ["second"])
    spoiled = local_path(url).read_bytes().replace(b"first", b"\0\0\0\0\0")
    local_path(url).write_bytes(spoiled)
    with FileJournal(url, OWNER) as journal:
        assert (journal.get(KEY), journal.get(OTHER)) == (None, ["second"])


def test_a_second_writer_of_the_same_file_reads_and_writes_nothing(url):
    with FileJournal(url, OWNER) as journal, FileJournal(url, OWNER | {"round": 2}) as second:
        journal.put(KEY, [1])
        second.put(OTHER, [2])
        assert second.get(OTHER) is None
    with FileJournal(url, OWNER) as journal:
        assert (journal.get(KEY), journal.get(OTHER)) == ([1], None)


def test_a_journal_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "trees").write_text("a file, not a folder")
    with pytest.raises(UserError, match="cannot write"):
        FileJournal(str(tmp_path / "trees" / "shard.jsonl"), OWNER).__enter__()


def test_the_journal_of_an_object_is_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with FileJournal("s3://bucket/shard.jsonl", OWNER) as journal:
        assert tmp_path in journal.path.parents
    discard("s3://bucket/shard.jsonl")
    assert not journal.path.exists()
    discard("s3://bucket/shard.jsonl")


class Engine:
    """A policy and scorer that counts its calls."""

    def __init__(self):
        self.num_asked = 0

    async def propose(self, question, prefix, *, num_candidates, seed):
        self.num_asked += 1
        return [Proposal(f"{question}{prefix}{seed}-{i}", i, -0.1 * i, 9) for i in range(num_candidates)]

    async def score(self, question, prefix, candidates):
        self.num_asked += 1
        return [0.1 * len(candidate) for candidate in candidates]


async def test_a_journalled_engine_is_asked_once_and_answers_the_same(url):
    engine = Engine()
    with FileJournal(url, OWNER) as journal:
        policy, scorer = JournalledPolicy(engine, journal), JournalledScorer(engine, journal)
        said = await policy.propose("q", ["a", "b"], num_candidates=3, seed=5)
        scores = await scorer.score("q", ["a", "b"], ["x", "yy"])
    with FileJournal(url, OWNER) as journal:
        policy, scorer = JournalledPolicy(engine, journal), JournalledScorer(engine, journal)
        assert await policy.propose("q", ["a", "b"], num_candidates=3, seed=5) == said
        assert await scorer.score("q", ["a", "b"], ["x", "yy"]) == scores
        assert engine.num_asked == 2
        for asked in (("q", ["ab"], 3, 5), ("q", ["a", "b"], 2, 5), ("q", ["a", "b"], 3, 6), ("qa", ["b"], 3, 5)):
            await policy.propose(*asked[:2], num_candidates=asked[2], seed=asked[3])
        await scorer.score("q", ["a"], ["b", "x", "yy"])
        assert engine.num_asked == 7


async def test_journalling_costs_far_less_than_a_millisecond_an_expansion(url):
    steps = [f"\n# Step {i}: the apples in basket {i}\nbasket = 3 * {i} + apples\n<end_of_step>" for i in range(16)]
    proposals = [Proposal(text, 40, -12.345678901234, 300) for text in steps]

    class Instant:
        async def propose(self, question, prefix, *, num_candidates, seed):
            return proposals

    with FileJournal(url, OWNER) as journal:
        policy = JournalledPolicy(Instant(), journal)
        start = time.process_time()
        for seed in range(1000):
            await policy.propose("q" * 200, steps[:6], num_candidates=16, seed=seed)
        seconds = time.process_time() - start
    assert seconds / 1000 < 0.0005  # per expansion
