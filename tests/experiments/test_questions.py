"""Users' questions: all twelve are there, answered or with a reason; the page; what answers rest on."""

import json
import re

import pytest
from click.testing import CliRunner

from experiments import questions, questions_answers, questions_classes, questions_stops
from experiments.published_figure import Row
from experiments.questions import QUESTIONS, Question
from sim.jit import PLAIN
from sim.units import MIB


def test_every_question_is_answered_or_says_why_not():
    assert [one.number for one in QUESTIONS] == list(range(1, 13))
    for one in QUESTIONS:
        assert one.links and all(re.fullmatch(r"https://\S+\d\S*|https://go\.dev/\S+", link) for link in one.links)
        told = (one.answer is not None, bool(one.scenario), bool(one.band), not one.why)
        assert set(told) in ({True}, {False}), one.number


def test_page_and_command(monkeypatch, tmp_path):
    rows = [Row("ns", 10, 10.5), Row("us", 1, 3), Row("ms", 1, 1.01, fitted=True)]
    asked = (
        Question(
            1, "How long?", ("https://github.com/golang/go/issues/1",), "a heap", "theory, 10 %", answer=lambda: rows
        ),
        Question(2, "How far?", ("https://example.org/2",), why="it has no length"),
    )
    monkeypatch.setattr(questions, "QUESTIONS", asked)
    page = tmp_path / "page.md"
    result = CliRunner().invoke(questions.main, ["-o", str(page)])
    assert result.exit_code == 0
    assert page.read_text() == result.stdout
    assert "1 of 2 questions answered, by 2 predicted numbers: 1 within their band." in result.stdout
    assert "| us | 1 | 3 | +200 % | 10 % | outside |" in result.stdout
    assert "| ms | 1 | 1.01 | +1 % | 10 % | fitted |" in result.stdout
    assert "- Q2: How far? (<https://example.org/2>) It has no length.\n" in result.stdout
    (one,) = json.loads(CliRunner().invoke(questions.main, ["--json", "--only", "1"]).stdout)
    assert [row["outcome"] for row in one["rows"]] == ["within", "outside", "fitted"]
    result = CliRunner().invoke(questions.main, ["-o", str(tmp_path / "nowhere" / "page.md")])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("nowhere; make it first")


def test_the_kept_page_is_of_these_questions():
    page = (questions.Path(questions.__file__).parent / "questions.md").read_text()
    for one in QUESTIONS:
        assert f"## Q{one.number}: {one.asked}\n" in page or f"- Q{one.number}: {one.asked} (" in page


@pytest.mark.skipif(PLAIN, reason="some million mallocs")
def test_a_quarter_of_busy_ps_marks():
    """While every P has work, of 8 Ps two mark: marking takes half of its CPU time; twice the heap, twice as long."""
    small, large = (questions_answers.cycle("go1.19", 8, mib * MIB, 256) for mib in (16, 32))
    for one in (small, large):
        assert one.idle_time == one.assist_time == 0
        assert one.t_mark_term - one.t_mark == pytest.approx(questions_answers._cpu(one) / 2, rel=0.1)
    assert large.heap2 > 1.9 * small.heap2


def test_a_share_is_of_the_time_from_the_first_work_to_the_last():
    samples = [(10, 0), (20, 0), (30, 1), (40, 1), (50, 3), (60, 3)]
    assert questions_answers._busy_share(samples) == pytest.approx(3 / 30)


@pytest.mark.skipif(PLAIN, reason="half a million mallocs")
def test_waste_is_what_the_layout_of_a_span_leaves():
    """8 KiB hold 341 slots of 24 bytes, or 336 beside 128 bytes of mark bits in go1.27; of 1152 bytes 7."""
    assert questions_classes.in_use(24, 0) == pytest.approx(8192 / (336 * 24), rel=1e-3)
    assert questions_classes.in_use(1025, 0) == pytest.approx(8192 / (7 * 1025), rel=1e-3)


@pytest.mark.skipif(PLAIN, reason="a hundred thousand mallocs")
def test_a_stop_waits_for_who_gives_memory_back(monkeypatch):
    """Twice the memory past the limit: a stop twice as long, in either case as long as the giving back, which is priced."""
    found = []
    for heap, limit in ((64, 48), (128, 96)):
        monkeypatch.setattr(questions_stops, "_HEAP", heap * MIB)
        found.append(questions_stops.longest_stop(limit * MIB))
    (short, gave_little), (long, gave_much) = found
    assert long == pytest.approx(2 * short, rel=0.15)
    assert short < gave_little and long < gave_much
