"""The measured parts of the pages on extras.explore and extras.search, as tables.py has others.

Run       python -m docs.pages, which writes them into the pages
"""

from statistics import mean, stdev

from docs.results.tables import markdown, read


def explored():
    """What extras.explore says of IMDB: docs/results/explore.json."""
    (found,) = read("explore.json")
    (tags, every), sizes = found["html"], found["rows"]
    lines = [f"Of IMDB ({sizes['train']:,} reviews to train, {sizes['test']:,} to test) it says: "
             f"{tags / every:.0%} hold HTML, and these are copies or get cut, in the tokens of "
             f"{found['model']}:", "", "| | |", "|---|---|"]
    lines += [f"| {where} | {n:,} reviews, {other:,} with another label |"
              for where, n, other in found["copies"]]
    lines += [f"| longer than {cut} tokens | {over:.1%} of the reviews, which lose {lost:.1%} of "
              "all tokens |"
              for cut, over, lost in found["losses"]]
    return "\n".join(lines)


def doubts():
    """How many swapped labels it finds: docs/results/explore.json."""
    (found,) = read("explore.json")
    (rows, swapped), hits = found["of"], found["hits"]
    return (
        f"{rows:,} reviews were drawn {len(hits)} times, and each time {swapped} labels swapped "
        f"on purpose. Of the {swapped} rows that it doubted most, {mean(hits):.1f} were swapped "
        f"ones on average ({min(hits)} to {max(hits)}). Chance would find "
        f"{swapped * swapped / rows:.1f}."
    )


def searched():
    """A search beside a grid: docs/results/search.json."""
    (found,) = read("search.json")
    rows = []
    for name, title in (("grid", "all of a grid"), ("tpe", "a search")):
        one = found[name]
        how = f"{one['trials']} trials, {one['stopped']} stopped early, {one['epochs']} epochs"
        value = f"{mean(one['again']):.2%} ± {stdev(one['again']):.2%} ({len(one['again'])} seeds)"
        rate, size = float(one["best"]["lr"]), one["best"]["batch-size"]
        rows.append([f"{title}: {how}", f"lr {rate:.2g}, batch size {size}", value])
    n = found["grid"]["reviews"]
    words = "On the rehearsal, cut short (`--demo --subset 1000 --epochs 4`), with rate and batch "
    words += "size to find. The best setting of each was trained again with seeds that chose "
    words += f"nothing, and judged by {n} reviews:\n\n"
    return words + markdown(["way", "it chose", "validation"], rows)


SECTIONS = {"explore": explored, "doubts": doubts, "search": searched}
