"""Records to a static site: an index, a page a suite, a page a cell. Opens from `file://` and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import gc
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.errors import QuantboardError, Tell, disk_fault, refuse
from harness.machine import paths
from harness.machine.digests import digest
from harness.machine.software import code_digest, file_hashes, tree_digest
from harness.report.build import MARK, Build
from harness.report.catalog import Catalog
from harness.report.kept import keep, recall
from harness.report.table_html import soft, table_html

PAGES = re.compile(
    r"(index|coverage|references|method|compare|history)\.html|(suite|cell|task|compare|history|benchmark)-[A-Za-z0-9_.-]+\.(html|csv|json|parquet)"
)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Records are many objects without cycles: looking for cycles among them takes a quarter of a build."""
    usual = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if usual:
            gc.enable()


@_without_collections()
def render(results: Path, out: Path, *, if_changed: bool = False, tell: Tell = refuse) -> Path:
    """Write the whole site to `out` and return its index page. An older site is replaced only when the new one is complete;
    with if_changed it stays where it was made of the same records, scores, suites, templates and code. Pages whose inputs are what
    they were in the last build are taken from it.

    `tell` gets damaged records and scores files: `refuse` raises RecordError. Raises SuiteError for a suite file whose references
    cannot be read, and QuantboardError for a folder with other files in it. Nothing half-written stays.
    """
    if out.exists() and not _is_ours(out):
        raise QuantboardError(f"{out}: holds files that are not a Quantboard site; name another folder with --out")
    # before reading: records appended in the meantime belong to the next site
    hashes = file_hashes(results)
    code = _program()
    source = digest([sorted(hashes.items()), code])
    if if_changed and is_unchanged(out, source):
        return out / "index.html"
    kept = recall(out, code)
    catalog = Catalog(results, hashes, kept.known, tell)
    fresh: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".site-", dir=out.parent))
        fresh.chmod(0o755)
        left = Build(fresh, out, kept, catalog, hashes, code, make_environment(paths.site_sources()), tell).write(
            source
        )
        if out.exists():
            shutil.rmtree(out)
        fresh.rename(out)
    except OSError as error:
        raise QuantboardError(
            disk_fault(error, out, "name another folder with --out", "cannot write the site")
        ) from None
    finally:
        if fresh:
            shutil.rmtree(fresh, ignore_errors=True)  # no longer there once it has become `out`
    keep(out, code, left)
    return out / "index.html"


def _is_ours(out: Path) -> bool:
    """An empty folder, or one that holds nothing but our pages: all of it is replaced."""
    return out.is_dir() and all(PAGES.fullmatch(path.name) and path.is_file() for path in out.iterdir())


def make_environment(home: Path) -> Environment:
    """Templates with autoescape. The style sheet and the script are inlined, and the Content-Security-Policy holds their hashes,
    because a policy of 'self' means nothing to a page that is opened from a file."""
    environment = Environment(
        loader=FileSystemLoader(home / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("style.css", "script.js", "task.js", "compare.js")
    style, script, task_script, compare_script = (
        (home / "static" / name).read_text(encoding="utf-8") for name in names
    )
    environment.filters["soft"] = lambda text: Markup(soft(str(text)))
    environment.globals["table"] = table_html
    scripts = " ".join(map(_hash, (script, task_script, compare_script)))
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {scripts}; base-uri 'none'; form-action 'none'"
    environment.globals |= {"style": Markup(style), "script": Markup(script), "task_script": Markup(task_script)}
    environment.globals["compare_script"] = Markup(compare_script)
    environment.globals["policy"] = policy
    return environment


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


LIBRARIES = ("jinja2", "markdown-it-py", "numpy", "pandas", "pyarrow", "scipy")


def _program() -> str:
    """Hash of all that decides the pages besides the results: suites, templates, our code, and the libraries' versions."""
    folders = [tree_digest(folder) for folder in (paths.suites(), paths.site_sources())]
    method = paths.method()
    text = method.read_text(encoding="utf-8") if method.is_file() else ""
    return digest([folders, text, code_digest(), [version(name) for name in LIBRARIES]])


def is_unchanged(out: Path, source: str) -> bool:
    """Whether `out` holds the complete site that was made of this source."""
    try:
        index = (out / "index.html").read_text(encoding="utf-8")
        return MARK.format(f"{source} {len(list(out.iterdir()))}") in index
    except OSError:
        return False
