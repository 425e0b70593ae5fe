"""Users' questions and what the model says: ``python -m experiments.questions [-o FILE] [--json]``.

Twelve questions that people asked about Go's allocator and collector, with where they asked. For each that the model
can answer: what was simulated, the expected number and band, where these come from, and the outcome, also where it
misses. The others are listed with what keeps them from an answer.

*Predicted* rows are held against numbers that the model was not given; *fitted* ones were given and prove nothing.
Where a question is one of published figures, rows are those of `published`, at less length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from experiments import questions_answers as answers
from experiments import questions_classes as classes
from experiments import questions_stops as stops
from experiments.published_figure import Row, show, table

_GO = "https://github.com/golang/go/issues/"


@dataclass(frozen=True)
class Question:
    """What was asked, and where (links). ``why``: what keeps the model from an answer; else:

    ``scenario``: what is simulated. ``band``: where expected numbers and bands come from. ``fitted``: what of it the
    model was given. ``answer``: makes the rows. ``says``: what they leave out.
    """

    number: int
    asked: str
    links: tuple[str, ...]
    scenario: str = ""
    band: str = ""
    fitted: str = "nothing"
    answer: Callable[[], list[Row]] | None = None
    says: str = ""
    why: str = ""


def _go(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{_GO}{number}" for number in numbers)


QUESTIONS = (
    Question(
        1,
        "When does a memory limit become a death spiral, how much CPU does it take, and for how long?",
        _go(58106, 48409, 59324),
        scenario="two services on 4 Ps with 32 MiB live that leak towards a limit of 64 MiB, GOGC=off"
        " (`python -m experiments.memory_limit_spiral`, which also has a floor under GOGC)",
        band="seconds: the GC guide's closed form, 10 %; limiter: its design, half of the Ps' time, 10 %; past the limit: a"
        " trace of issue 58106, 30 %",
        fitted="the form's one number, to the first second",
        answer=answers.spiral,
        says="The program of issue 58106 has 3 Ps and 2 GB, and allocates at a rate that is not told: the last two rows are"
        " of another one.",
    ),
    Question(
        2,
        "Which memory limit for a container of a given size?",
        ("https://github.com/erigontech/erigon/pull/23757", *_go(75164, 68346)),
        scenario="a cache at limits of 0.5 to 0.9 of its container, at a 64th of its size",
        band="the pull request's measurements, 15 %",
        fitted="live heap and bytes that a run allocates, to the cycles of the first two rows",
        answer=answers.limit_ratio,
        says="How many requests a second that gives is not predicted: what else they wait for is not known.",
    ),
    Question(
        3,
        "Does staying under a memory limit lengthen stops of the world?",
        _go(73835),
        scenario="4 Ps and a heap of 256 MiB full of holes, which gets a limit of 200 MiB with GOGC=off: collections beside a"
        " goroutine that allocates",
        band="issue 73835: a stop of 400 ms, all of which a goroutine spends in sysUnused, 10 %",
        answer=stops.stops,
        says="So yes: 43 ms here, where without the limit the longest stop is 2.2 ms, for the heap's growth. How far the"
        " program of issue 73835 was past its limit of 12 GiB is not told; 400 ms would be half a GiB given back in pieces"
        " of 24 KiB.",
    ),
    Question(
        4,
        "How much of the tails are mark assists, and what without them?",
        (*_go(56966, 27732, 40225), "https://github.com/cockroachdb/cockroach/pull/170731"),
        scenario="a service of 50,000 requests a second on 8 Ps, nine tenths busy, with and without assists, one seed"
        " (`python -m experiments.assist_tails` has more)",
        band="p99: go1.19 in issue 56966, 50 %; peak: cockroach issue 17243, 10 %",
        answer=answers.assists,
        says="Neither program is described well enough to be built; this is another one.",
    ),
    Question(
        5,
        "At how many Ps do the runtime's locks collapse?",
        _go(67585, 68578, 61426),
        scenario="sched.lock alone: a thread a P takes it, holds it, works; as a queue, and as lock_futex.go",
        band="issue 67585, 30 %",
        fitted="the time between two holds, to the share at 22 Ps",
        answer=answers.lock_knee,
        says="That pollers slow the holder down is not modelled; spinbit (issue 68578) is not either.",
    ),
    Question(
        6,
        "How often is the page heap met, how long is its lock held, and what did the lock of mcentral cost?",
        (
            *_go(35112, 37487, 36521),
            "https://go.googlesource.com/proposal/+/master/design/35112-scaling-the-page-allocator.md",
        ),
        scenario="8 Ps that allocate 1 KiB objects; 8 and 28 Ps with the mutex of go1.14 and without",
        band="the design document, 25 to 50 %; commit a13691966ad5, 30 %",
        fitted="for the mutex, work between mallocs to the throughput without it",
        answer=answers.page_heap,
        says="Go before 1.12 (a treap) is not modelled.",
    ),
    Question(
        7,
        "What does GOMAXPROCS above a CPU quota cost when the collector runs?",
        _go(73193, 33803, 76835),
        why="CPUs are always there in the model: a quota that throttles all threads for the rest of a period is none of"
        " its parts",
    ),
    Question(
        8,
        "What do size classes and spans waste, and what would another class do?",
        _go(8885, 17633, 78962),
        scenario="heaps of 16 MiB of objects of one size: the worst of some size classes, and nodes of three words with"
        " their class of 24 bytes and in that of 32",
        band='sizeclasses.go of Go 1.27, the column "max waste", 2 %; issue 8885: 25 % less for programs that are full of'
        " such nodes, 2 %",
        answer=classes.waste,
        says="All of it follows from the table of classes and spans. The first two miss because spans of up to 512 bytes"
        " hold their mark bits in Go 1.27, 128 bytes of 8 KiB, which that column knows nothing of. The 6 % that the class of 24 bytes took off the heap of"
        " a benchmark (issue 8885) needs its mix of sizes, which is not told; pages of 64 KiB of the system (issue 78962)"
        " are not modelled: the model's have 4 KiB.",
    ),
    Question(
        9,
        "How long does marking a large heap take, on how many cores?",
        _go(19393, 40225, 9265),
        scenario="a forced cycle of a live heap of the reported size, at a 16th of it, all Ps busy; objects of 256 bytes"
        " full of pointers; go1.19, prices of epyc-2core",
        band="gctrace lines in the issues; their objects and machines are not known: 50 %",
        answer=answers.large_heap,
        says="The search for a span among 131,221 (issue 9265) is of a runtime that is not modelled.",
    ),
    Question(
        10,
        "Does Green Tea help a heap of this shape?",
        (*_go(73581, 79931), "https://go.dev/blog/greenteagc"),
        scenario="a forced cycle of 256 MiB in 64-byte objects on 2 busy Ps, go1.27 and go1.19, by heap_shape",
        band="10 to 40 % less CPU time (issue 73581)",
        answer=answers.green_tea,
        says="Prices of both versions are measured on one machine, each with all that changed between them, not Green Tea"
        " alone, in programs that do nothing but mark: the ratio is that measurement's, not the model's.",
    ),
    Question(
        11,
        "On a machine of several NUMA nodes: one process or several?",
        _go(47831, 14406),
        why="memory is as near to every P in the model, and prices are of one node",
    ),
    Question(
        12,
        "When is memory given back to the system, and what does that cost?",
        _go(30333, 33376, 36398, 16930),
        scenario="a heap of 512 MiB that shrinks to 64 MiB, with a forced cycle each 100 ms or each second; and one of 64"
        " MiB that fills a limit of 256 MiB with garbage, GOGC=off",
        band="the scavenger's design: 10 % beyond what is in use, 5 %; 1 % of the Ps' time, a quarter; and the limit's headroom"
        " of 3 %, 3 %",
        answer=answers.given_back,
        says="What the program pays for faults when it takes memory back is a price (first_touch), not predicted.",
    ),
)


@dataclass(frozen=True)
class Answered:
    """A question and its rows; none if it was not answered."""

    question: Question
    rows: Sequence[Row]


def ask(questions: Sequence[Question]) -> list[Answered]:
    """Answer what can be answered."""
    return [Answered(one, one.answer() if one.answer is not None else ()) for one in questions]


def page(found: Sequence[Answered]) -> Iterator[str]:
    """All questions as a page of Markdown."""
    answered = [one for one in found if one.rows]
    predicted = [row for one in answered for row in one.rows if not row.fitted]
    within = sum(row.outcome == "within" for row in predicted)
    yield "# Users' questions"
    yield ""
    yield f"{len(answered)} of {len(found)} questions answered, by {len(predicted)} predicted numbers: {within} within their band."
    yield "Written by `python -m experiments.questions`; prices of the machine epyc-2core."
    for one in answered:
        question = one.question
        yield from ("", f"## Q{question.number}: {question.asked}", "", f"Asked: {_linked(question)}  ")
        yield from (
            f"Simulated: {question.scenario}.  ",
            f"Expected: {question.band}.  ",
            f"Fitted: {question.fitted}.",
            "",
        )
        yield from table(one.rows, "expected")
        yield from ("", question.says)
    yield from ("", "## Not answered yet", "")
    for one in found:
        if not one.rows:
            yield f"- Q{one.question.number}: {one.question.asked} ({_linked(one.question)}) {_sentence(one.question.why)}"


def _linked(question: Question) -> str:
    return ", ".join(
        f"[{link.removeprefix(_GO)}]({link})" if link.startswith(_GO) else f"<{link}>" for link in question.links
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def as_json(found: Sequence[Answered]) -> list[dict[str, Any]]:
    """The shape of ``--json``."""
    keys = ("number", "asked", "links", "scenario", "band", "fitted", "says", "why")
    return [
        {key: getattr(one.question, key) for key in keys}
        | {"rows": [{key: getattr(row, key) for key in (*Row.__slots__, "error", "outcome")} for row in one.rows]}
        for one in found
    ]


@click.command("questions", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the page there.")
@click.option(
    "--only", type=click.IntRange(1, 12), multiple=True, metavar="N", help="Answer question N alone; repeatable."
)
@click.option("--json", "as_json_", is_flag=True, help="Print JSON instead of the page.")
def main(output: Path | None, only: tuple[int, ...], as_json_: bool) -> None:
    """Answer users' questions about Go's allocator and collector, and say how far the answers are from what is known."""

    def make() -> tuple[Iterator[str], Any]:
        found = ask([one for one in QUESTIONS if not only or one.number in only])
        return page(found), as_json(found)

    show("questions", output, as_json_, make)


if __name__ == "__main__":
    main()
