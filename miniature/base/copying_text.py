"""Text for the first stage of pre-training: copying, arithmetic in words, and the look of code.

The base stands in for Qwen2.5-Math-7B (Section 4.1): it can write steps in the format, but cannot solve the problem
families. A sentence here is random words around a name and numbers. If it has an operation, the operation is spelled
out (plus, minus, times, over, modulo). Nothing says what "loses", "percent" or "in the end" mean, that some sentences
are distractors, or which quantity a question asks for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from string import ascii_uppercase

from domains.mathematics.prompts import render_prompt
from miniature.steps import write_solution

NAMES = """
Tom Ana Ben Mia Leo Eva Sam Zoe Max Ida Jon Lea Ali Uma Kai Noa Roy Pia Gus Ada
""".split()  # noqa: SIM905
WORDS = """
a able about above add adds after again age ahead all also always an and another any apples are as ask at away
back bag bags ball be beads become bed before begin beginning behind belongs best big bird blue boat book
books bottle box boxes boy bread bridge bring brother bus but buy buys by cake call can car card cards carries
case cat chair change city class clean close cloth coat coins cold collects comes cook count crates cup
damaged day days did do does dog donates door down draw drive dry each early east eat egg eggs empty end ends
equal equally even evenly ever every everything exact exactly fall family far farm fast feet fewer field fills
find finds fine fire first fish five floor flower fly food for forest found four fresh friend from front fruit
full game garden gave gets girl give gives glass go gold good grass great green ground group grow had half
hall hand hands hard has have he head heavy her here high hill his hold home horse hot hour hours house how
hundred idea if in inside into is island it jar job join jump just keep keeps kept key kilograms kind king
kitchen know lake lamp land large last late learn least leaves left less letter light like line list liters
little lives long look loses lot low lunch machine made makes many map market meal meet meters milk minute
money month moon more morning most mother mountain move much must name near need neighbor never new next night
no north not note now number numbers nuts of off office often oil old on once one only open or orange order
other out over own owns packs page paint paper park part parts party path pay pen pencil pens people percent
picture piece pieces place plan plant plate play point pool portion portions pours price pulls put question
quick rain reach read ready receives red rest rice ride right ring rise river road room rope round row rule
run safe salt sand school sea seat seats sell sells send set shelf shells ship ships shop short shows side
sister small snow soft some son soon sort south splits spring stamps stand star start starts station stay step
stone stop store storm story street strong sugar summer sun sure table take takes tall tea teacher team ten
than that the their them then there these they thing third this those three time times to today together top
total town trades train tree trip try turn two under until up use uses village visit wait walk wall wants warm
was watch water way week weeks well west what wheel when where which white who whole why wide will wind window
winter with wood word work world year years yellow yet you young your
""".split()  # noqa: SIM905
NOUNS = "apples stamps coins shells cards books eggs pens beads nuts rice milk rope sand".split()  # noqa: SIM905
Line = tuple[str, str, str]  # a sentence, its code, the code that undoes it
OPERATIONS = (("plus", "+", "-"), ("minus", "-", "+"), ("times", "*", "//"), ("over", "//", "*"), ("modulo", "%", "%"))


def document(rng: random.Random) -> tuple[str, str]:
    """Return one (prompt, response): a passage, and code whose comments copy its sentences one by one."""
    people = rng.sample(NAMES, rng.choice((1, 1, 2)))
    lines = [_sentence(rng, people) for _ in range(rng.choice((1, 1, 1, *range(2, 11))))]
    backwards = rng.random() < 0.25
    question = f"{'Backwards' if backwards else 'Forwards'} {_words(rng, 1, 5, people)}?"
    lines, question = lettered(lines, question)
    passage = " ".join([*(sentence for sentence, _, _ in lines), question])
    if backwards:
        lines = [(f"Undo: {sentence}", undo, "") for sentence, _, undo in reversed(lines)]
    steps = [(sentence, checked(code)) for sentence, code, _ in lines]
    shown = rng.choice((people[0].lower(), f"{people[0].lower()} {rng.choice('+-')} {people[-1].lower()}"))
    if len(people) == 2 and rng.random() < 0.3:
        shown = f"({people[0].lower()}, {people[1].lower()})"
    steps.append((question, f"print({shown})"))
    return render_prompt(passage), "".join(write_solution(steps, draw_output(rng)))


def lettered(lines: list[Line], question: str) -> tuple[list[Line], str]:
    """Put a letter before each sentence and the question, as in the families, so that a copy can find its place."""
    told = [(f"{letter}) {sentence}", *code) for letter, (sentence, *code) in zip(ascii_uppercase, lines, strict=False)]
    return told, f"{ascii_uppercase[len(lines)]}) {question}"


def checked(code: str) -> str:
    """Put an assertion that nothing is left over before a line that divides, as the families do."""
    found = re.search(r"(?:= |[-+] )((?:\w+ \* )*\w+) // (\(.*?\)|\w+)", code)
    return f"assert {found[1]} % {found[2]} == 0\n{code}" if found else code


def documents(seed: int) -> Iterator[tuple[str, str]]:
    """Yield documents without end; equal seeds give equal documents."""
    rng = random.Random(seed)
    while True:
        yield document(rng)


def vocabulary_text() -> Iterator[str]:
    """Yield the tokenizer's training text; it repeats each word that should be a single token."""
    yield from (f"{word} {word.capitalize()} {word}" for word in WORDS for _ in range(20))
    yield from (
        f"{name} {name} {name.lower()} {name.lower()}\n{name.lower()} = {name}." for name in NAMES for _ in range(50)
    )
    yield from (
        "from fractions import Fraction\nprint(Fraction(x, 2)) # Undo: How What The By For In extra\nassert x % 2 == 0",
    ) * 50
    stream = documents(0)
    yield from ("".join(next(stream)) for _ in range(300))


def _sentence(rng: random.Random, people: list[str]) -> Line:
    who, b = rng.choice(people), rng.choice(people).lower()
    a, n, m = who.lower(), draw_number(rng), draw_number(rng)
    noun, (word, sign, inverse) = rng.choice(NOUNS), rng.choice(OPERATIONS)
    kind = rng.random()
    if kind < 0.2:  # random words around a name and a number, which the code notes
        return f"{capitalized(_words(rng, 1, 6, [who, str(n)]))}.", f"{a} = {n}", f"{a} = {n}"
    if kind < 0.35:
        return f"{who} {rng.choice(('is', 'equals', 'holds'))} {n} {noun}.", f"{a} = {n}", f"{a} = {n}"
    if kind < 0.65:
        sentence = rng.choice((f"{who} {word} {n} {noun}.", f"The {noun} of {who} {word} {n}."))
        return sentence, f"{a} = {a} {sign} {n}", f"{a} = {a} {inverse} {n}"
    if kind < 0.8:
        sentence = rng.choice((f"{who} {word} {n} {noun} times {m}.", f"Times {m} {who} {word} {n} {noun}."))
        return sentence, f"{a} = {a} {sign} {n} * {m}", f"{a} = {a} {inverse} {n} * {m}"
    if kind < 0.9:
        return f"{who} is {b.capitalize()} {word} {n}.", f"{a} = {b} {sign} {n}", f"{a} = {b} {inverse} {n}"
    if kind < 0.95:
        code = f"from fractions import Fraction\n{a} = Fraction({a}, {n})"
        return f"{who} is an exact {n}.", code, f"{a} = {a} * {n}"
    both = "{a} = {a} {x} {n}\n{b} = {b} {y} {n}".format
    sentence = f"{who} and {b.capitalize()} change by {n}."
    return sentence, both(a=a, b=b, n=n, x="-", y="+"), both(a=a, b=b, n=n, x="+", y="-")


def capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def draw_number(rng: random.Random) -> int:
    return rng.choice((rng.randint(2, 12), rng.randint(2, 99), rng.randint(2, 999), rng.choice(range(5, 100, 5))))


def _words(rng: random.Random, low: int, high: int, among: list[str] | None = None) -> str:
    words = rng.choices(WORDS, k=rng.randint(low, high))
    for word in among or []:
        words.insert(rng.randint(0, len(words)), word)
    return " ".join(words)


def draw_output(rng: random.Random) -> str:
    """Return what a program might print."""
    n, m = rng.randint(2, 9999), rng.randint(2, 999)
    return rng.choice((f"{n}", f"{m}", f"{m}", f"{n}/{m % 12 + 2}", f"({m}, {n})"))
