"""`rstar import`: problems from a JSON Lines file to a Parquet file; bad rows are named and counted."""

from __future__ import annotations

from pathlib import Path

from rich.progress import Progress

from cli.console import console, errors
from domains.registry import find_domain
from problems.sources.json_lines import ImportResult, import_problems
from rstar.protocols import UserError
from store import shards
from tasks.problems import problem_row

MAX_NAMED = 20  # bad rows that are printed


def import_file(file: Path, out: str, *, domain: str, strict: bool, level: str | None) -> list[dict[str, object]]:
    """Write the good rows of `file` to `out`; return the counts of rows, by what happened to them."""
    if "://" not in out and file.exists() and Path(out).exists() and Path(out).samefile(file):
        raise UserError(f"--out {out}: that is the file to import; name another one")
    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task(f"reading {file}", total=1.0)
        result = import_problems(
            file,
            domain=find_domain(domain),
            strict=strict,
            level=level,
            progress=lambda rows, share: bars.update(bar, completed=share, description=f"{rows} rows"),
        )
    check_rows(file, result)
    shards.write_rows(out, "problems", map(problem_row, result.problems))
    kinds = [{"rows": kind, "count": count} for kind, count in sorted(result.counts.items())]
    return [{"rows": "read", "count": result.num_rows}, {"rows": "kept", "count": len(result.problems)}, *kinds]


def check_rows(file: Path, result: ImportResult) -> None:
    """Print which rows were left out, and why. Raises UserError if no row is left."""
    for error in result.errors[:MAX_NAMED]:
        errors.print(str(error), markup=False)
    if len(result.errors) > MAX_NAMED:
        errors.print(f"... and {len(result.errors) - MAX_NAMED} more")
    if not result.problems:
        raise UserError(f"{file}: none of its {result.num_rows} rows is a usable problem")
