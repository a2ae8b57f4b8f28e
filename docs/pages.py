"""Write the measured parts of README.md and of the pages here from the files in docs/results.

Run       python -m docs.pages
Expect    the pages with their tables anew; `git diff` shows which figures have changed. A test
          fails when a page says anything else than these files.

A measured part stands between two marks, which GitHub does not show. Under it stands the commit at
which its files were recorded: figures belong to the code that made them. (It is the one that is
checked out when this runs, so commit the code first.)
"""

import json
import re
import subprocess
from pathlib import Path

from docs.results import changes, front, learned, tables, tools
from support.files import digest, write_whole

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
COMMITS = ROOT / "docs" / "results" / "commits.json"
SECTIONS = tables.SECTIONS | learned.SECTIONS | changes.SECTIONS | front.SECTIONS
SECTIONS |= tools.SECTIONS
# These stand within a text, or come from no file, and have no line about their commit.
INSIDE = {"caption", "screen", "needs", "chapters", "lengths", "cuts", "accumulation", "width"}
SECTION = re.compile(r"<!-- ([\w-]+): docs/pages.py writes this -->\n(.*?)<!-- \1 ends -->", re.S)


def rewrite(text):
    """A page's text with every measured part written anew."""
    return SECTION.sub(lambda found: section(found[1]), text)


def section(name):
    """A measured part, with its marks and its commits."""
    tables.READ.clear()
    words = SECTIONS[name]()
    known = json.loads(COMMITS.read_text(encoding="utf-8"))
    found = {(known[file]["date"], known[file]["commit"]) for file in tables.READ}
    ends = [f"`{commit}` ({date[:10]})" for date, commit in sorted(found)]
    if name not in INSIDE and ends:
        one = len(ends) == 1
        when = f"at commit {ends[0]}" if one else f"between commits {ends[0]} and {ends[-1]}"
        words += f"\n\n<sub>Recorded {when}.</sub>"
    return f"<!-- {name}: docs/pages.py writes this -->\n{words}\n<!-- {name} ends -->"


def note_commits():
    """Write down the present commit for every result file that is new, or is not what it was."""
    known = json.loads(COMMITS.read_text(encoding="utf-8")) if COMMITS.exists() else {}
    command = ["git", "log", "-1", "--format=%h %cI"]
    now = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {}
    for path in sorted(COMMITS.parent.glob("*.json")):
        if path != COMMITS:
            content = digest(path.read_bytes())
            fresh = dict(zip(("commit", "date"), now.split()), digest=content)
            before = known.get(path.name, {})
            found[path.name] = before if before.get("digest") == content else fresh
    write_whole(COMMITS, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    note_commits()
    texts = {page: rewrite(page.read_text(encoding="utf-8")) for page in PAGES}  # all, or none
    for page, text in texts.items():
        write_whole(page, text)
