"""Appendix Q: does it understand?

Teaches   that a high accuracy can rest on words alone: ask in families what one skill would answer,
          and see which the model has (Ribeiro et al. 2020, "Beyond Accuracy", call them behavioural
          tests). Sixty sentences are few: a row is a hint where to look, not a measurement.
Order     after evaluate.py, whose --behaviour and --pairs this is.
Run       python evaluate.py --behaviour
          python evaluate.py --pairs pairs.tsv      a review and a changed one, side by side
Expect    a row for each family: how many are right, and the surest mistake.
Shows     $ python behaviour.py
          plain words     positive  A wonderful film from start to finish.
          ...
          who says so     positive  The villain is a horrible man in a marvellous film.
"""

import json

import parallel
from errors import UserError, make_parser, plain, run_command
from folder import check_target, write_whole
from hardware import choose_hardware
from sources import check_columns, label_index, read_rows

# "+" in front of a positive sentence, "-" of a negative one. One family, one skill.
FAMILIES = {
    "plain words": """
        + A wonderful film from start to finish.
        - A dreadful film from start to finish.
        + I loved every minute of it.
        - I hated every minute of it.
        + The acting is superb and the story is moving.
        - The acting is wooden and the story is dull.""",
    "negation": """
        - The plot is not good.
        + The plot is not bad at all.
        - I can't say that I enjoyed it.
        + I can't find anything wrong with it.
        - Nobody in this cast can act.
        + There is never a dull moment.
        - It isn't funny, and it isn't clever.
        + You won't regret seeing it.""",
    "but-clauses": """
        - The pictures are lovely, but the film is a bore.
        + The beginning is slow, but then it becomes a masterpiece.
        - I wanted to like it, but it is simply bad.
        + It has its flaws, but I would watch it again tomorrow.
        - Although the cast is great, I was glad when it ended.
        + Although the budget was tiny, the result is brilliant.""",
    "swapped names": """
        + Anna Miller is brilliant as the detective.
        + Kofi Mensah is brilliant as the detective.
        + Yuki Tanaka is brilliant as the detective.
        - Anna Miller is terrible as the detective.
        - Kofi Mensah is terrible as the detective.
        - Yuki Tanaka is terrible as the detective.""",
    "typing errors": """
        + An absolutly wonderfull movie.
        - An absolutly terible movie.
        + i lovd it so much
        - such a borring waste of tiem
        + GREAT film!!! reccomend it to evryone
        - woorst thing i hav ever seen""",
    "ratings": """
        + 9/10
        - 2/10
        + I give it 10 out of 10.
        - I give it 1 out of 10.
        + Five stars.
        - One star, and only because zero is not possible.""",
    "comparisons": """
        - The book is so much better than this.
        + So much better than the book.
        - Compared with the first part, this one is a disappointment.
        + Compared with this one, all other thrillers are a disappointment.
        - I have seen home videos with better acting.
        + I have never seen better acting.""",
    "expectations": """
        + I expected nothing and got more than that.
        - I expected a comedy and got two hours of silence.
        + I thought it would be terrible, and I was wrong.
        - I thought it would be great, and I was wrong.
        + After all the bad reviews this was a pleasant surprise.
        - After all the good reviews this was a letdown.""",
    "sarcasm": """
        - Oh great, another two hours of my life that I will never get back.
        - What a triumph: I only fell asleep twice.
        - If you enjoy watching paint dry, this is your film.
        - The best part was when the lights came on again.
        - A real achievement, to make dinosaurs boring.""",
    "who says so": """
        - My friends adore it; I do not.
        + My friends hate it; I do not.
        - The critics praise it, and I have no idea why.
        + The critics tore it apart, and I have no idea why: it is lovely.
        - The hero is a good man in a bad film.
        + The villain is a horrible man in a marvellous film.""",
}


def sentences():
    """[(family, sentence, 0 for negative or 1 for positive), ...]"""
    rows = []
    for family, text in FAMILIES.items():
        for line in text.strip().splitlines():
            sign, _, sentence = line.strip().partition(" ")
            rows.append((family, sentence, int(sign == "+")))
    return rows


def print_behaviour(classify, names):
    """Ask all sentences, print a row for each family. classify: of predict.make_classifier().

    Returns {family: {"right": ..., "n": ...}}.
    """
    if names != ["negative", "positive"]:
        raise UserError(
            f"--behaviour knows negative and positive, the model knows {', '.join(names)}"
        )
    rows = sentences()
    answers = classify([sentence for _, sentence, _ in rows])
    print(f"\n{'family':15} {'right':>8}   the surest mistake")
    found = {}
    for family in FAMILIES:
        asked = [
            (score, sentence, names[truth] == label)
            for (own, sentence, truth), (label, score) in zip(rows, answers)
            if own == family
        ]
        right = sum(well for _, _, well in asked)
        wrong = max(
            ((score, sentence) for score, sentence, well in asked if not well), default=None
        )
        found[family] = {"right": right, "n": len(asked)}
        shown = f"{wrong[0]:.3f}  {wrong[1]}" if wrong else "-"
        print(f"{family:15} {right:>3} of {len(asked):<2}   {shown}")
    print(f"{'all':15} {sum(row['right'] for row in found.values()):>3} of {len(rows)}")
    return found


def read_pairs(path, names):
    """[((text, class number), (text, class number)), ...] of a file that holds pairs.

    Its columns: original, original_label, changed, changed_label. Raises UserError.
    """
    wanted = ("original", "original_label", "changed", "changed_label")
    pairs = []
    for number, row in enumerate(read_rows(path), start=1):
        if number == 1:
            check_columns(row, dict.fromkeys(wanted, "a header line"), path)
        try:
            labels = [label_index(row[name], names) for name in wanted[1::2]]
        except UserError as error:
            raise UserError(f"{path}, row {number}: {error}") from error
        texts = [row[name] for name in wanted[::2]]
        if None in labels or not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(f"{path}, row {number}: needs two texts and two labels")
        pairs.append(tuple(zip(texts, labels)))
    if not pairs:
        raise UserError(f"{path} has column names but no rows")
    return pairs


def print_pairs(classify, names, path):
    """Score pairs of an original and a minimally changed review (Gardner et al. 2020).

    Who reads words alone gets one of two right; a pair counts when both are. Returns the counts.
    """
    pairs = read_pairs(path, names)
    answers = classify([text for pair in pairs for text, _ in pair])
    right = [
        [answers[2 * i + side][0] == names[pair[side][1]] for side in (0, 1)]
        for i, pair in enumerate(pairs)
    ]
    n = len(pairs)
    print(f"\n{n:,} pairs")
    counts = {
        "originals right": sum(first for first, _ in right),
        "changed ones right": sum(second for _, second in right),
        "both right": sum(first and second for first, second in right),
    }
    for title, count in counts.items():
        print(f"{title:20} {count:>6,}   {count / n:.1%}")
    for (first, second), well in list(zip(pairs, right)):
        if not all(well):
            which = second if well[0] else first
            print(f"for example, is {names[which[1]]}: {plain(which[0])[:200]}")
            break
    return counts | {"n": n}


def ask_skills(args):
    """evaluate.py --behaviour and --pairs: what the figures of a split do not tell."""
    from predict import make_classifier  # here, because it builds on evaluate.py, which needs us

    for name in ("save", "subset", "draw_seed", "data", "text_column", "label_column", "windows"):
        if getattr(args, name) not in (None, False):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"--behaviour and --pairs read no split: leave out {option}")
    if args.results is not None:
        check_target(args.results, args.model, *[args.pairs] * bool(args.pairs))
    # Few texts: in fp32, unless another precision was asked for, so that other tools agree.
    device, precision, _ = choose_hardware(args.device, args.precision or "fp32")
    parallel.join(device)
    classify, run, _ = make_classifier(args.model, device, precision, args.batch_size)
    record = {key: run[key] for key in ("arguments", "versions")} | {"precision": precision}
    if args.behaviour:
        record["families"] = print_behaviour(classify, run["labels"])
    if args.pairs:
        record["pairs"] = print_pairs(classify, run["labels"], args.pairs)
    if args.results is not None and parallel.rank() == 0:
        write_whole(args.results, json.dumps(record, indent=1) + "\n")


def main():
    make_parser(__doc__).parse_args()
    for family, sentence, truth in sentences():
        print(f"{family:15} {'positive' if truth else 'negative'}  {sentence}")


if __name__ == "__main__":
    run_command(main)
