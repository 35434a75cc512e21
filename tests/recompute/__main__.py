"""The command: see `tests.recompute`."""

import sys
from pathlib import Path

from tests.recompute.pages import check_readme
from tests.recompute.records import read, recompute

if __name__ == "__main__":
    folders = [Path(name) for name in sys.argv[1:2] if Path(name).is_dir()]
    if not folders or len(sys.argv) > 3:
        sys.exit("name a folder of records: python -m tests.recompute results/ [README.md]")
    tally = recompute(folders[0])
    for readme in sys.argv[2:]:
        check_readme(tally, Path(readme).read_text("utf-8"), read(folders[0]))
    sys.exit(0 if tally.report() else 1)
