"""The parts that our pages are made of. A page is one file that needs nothing else.

Teaches   how to show text that strangers wrote. Where a function says "text", it escapes what it
          gets: a review with a <script> in it is shown and not run. Where it says "HTML", you have
          to escape first, with text(). And how one page fits light and dark screens, phones, paper.
After     nothing: it knows no model. extras.explain, extras.report and extras.app use it.
"""

import html

# The colors, light and dark. You can tell "line" from "other" even if you see no red.
STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1c1e21;--line:#0a62c4;--other:#c4420a;
--faint:#c9ccd1;--card:#f6f7f9}
@media screen and (prefers-color-scheme:dark){:root{--page:#15171a;--ink:#e4e6e9;--line:#6cb2ff;
--other:#ffa366;--faint:#4a4f57;--card:#1e2125}}
@media print{:root{color-scheme:light}}
body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;
max-width:80em;padding:1em;overflow-wrap:anywhere}
h1{font-size:1.6em;margin:.4em 0}h2{margin:1.6em 0 .4em;border-bottom:2px solid var(--faint)}
h3{font-size:1em;margin:0 0 .4em}p{margin:.4em 0}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22em),1fr));gap:1em}
.card{background:var(--card);border-radius:8px;padding:.8em;break-inside:avoid;min-width:0}
.wide{grid-column:1/-1}.note{font-size:.9em;opacity:.85}
svg{width:100%;height:auto;display:block;stroke-linejoin:round}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.25em .5em;border-bottom:1px solid var(--faint)}
th,td{overflow-wrap:normal}th:first-child,td:first-child{text-align:left}
.facts td{text-align:left;vertical-align:top;overflow-wrap:anywhere}
.facts td:first-child{white-space:nowrap}.scroll{overflow-x:auto}
.words span{border-radius:3px;padding:1px 2px;print-color-adjust:exact}
li{margin:.8em 0}ol{padding-left:1.4em}
@media (max-width:30em){th,td{padding:.25em .15em;font-size:.85em}}
"""

# The classes of words: "f" for the answer, "a" against it; the higher the number, the stronger.
# Words against it are underlined as well, because not everybody can tell red from green.
COLOR_CLASSES = {3: "f3", 2: "f2", 1: "f1", 0: "f0", -1: "a1", -2: "a2", -3: "a3"}
WORD_COLORS = "".join(
    f".{kind}{n}{{background:rgba({color},{n * 0.28:.2f})}}"
    for kind, color in (("f", "30,160,60"), ("a", "220,50,40"))
    for n in (1, 2, 3)
)
WORD_COLORS += ".a1,.a2,.a3{text-decoration:underline}"


def text(value):
    """Escape anything: what looks like HTML in it is shown as it was written."""
    return html.escape(str(value))


def levels(shares):
    """{word number: level from -3 to 3}. The strongest word of a text has 3 or -3.

    shares: {word number: its share in the decision}, positive where the word speaks for the answer.
    """
    most = max(map(abs, shares.values()), default=0) or 1
    return {number: round(3 * share / most) for number, share in shares.items()}


def color_words(words, shares):
    """A text as HTML. Each word has its color, and shows its share when you point at it.

    words: strings. shares: see levels(); words that are not in it get no color.
    """
    level = levels(shares)
    spans = (
        f'<span class="{COLOR_CLASSES[level.get(number, 0)]}" '
        f'title="{shares.get(number, 0.0):+.3f}">'
        f"{text(word)}</span>"
        for number, word in enumerate(words)
    )
    return f'<p class="words">{" ".join(spans)}</p>'


def table(rows, header=(), kind=""):
    """A table as HTML. rows: lists of cells, each a text; format numbers first."""
    lines = [f'<div class="scroll"><table class="{kind}">']
    if header:
        lines.append("<tr>" + "".join(f"<th>{text(cell)}</th>" for cell in header) + "</tr>")
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>")
    return "".join([*lines, "</table></div>"])


def card(title, *content, note="", wide=False):
    """A box on the page, as HTML. content: HTML. title, note: text. wide: across all columns."""
    kind = "card wide" if wide else "card"
    note = f'<p class="note">{text(note)}</p>' if note else ""
    return f'<section class="{kind}"><h3>{text(title)}</h3>{"".join(content)}{note}</section>'


def cards(*content):
    """Cards side by side, as many as fit: three on a screen, one on a phone."""
    return f'<div class="cards">{"".join(content)}</div>'


def document(title, *content):
    """The whole page. title: text. content: HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{STYLE}{WORD_COLORS}</style></head><body><h1>{text(title)}</h1>"
        f"{''.join(content)}</body></html>\n"
    )
