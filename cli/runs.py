"""The runs on this machine: `runs/NAME`, or any folder that --out named."""

from __future__ import annotations

from pathlib import Path

from rstar.protocols import UserError

RUNS = Path("runs")


def find_run(run: str | None, *, trained: bool = False) -> str:
    """Return the folder of the run with this folder or name, or of the newest run in runs/.

    With `trained`, the newest run that has trained models. Raises UserError if there is no such run.
    """
    if run is not None:
        if "://" in run or (Path(run) / "recipe.json").is_file():
            return run
        if (RUNS / run).is_dir():
            return str(RUNS / run)
        if not Path(run).is_dir():
            raise UserError(f"run {run}: no such folder; give the folder of a run, or the name of one in {RUNS}/")
        return run
    runs = sorted(RUNS.glob("*/recipe.json"), key=lambda path: path.stat().st_mtime)
    runs = [path for path in runs if any(path.parent.glob("problems/*.parquet"))] or runs  # not one that never began
    if trained:
        runs = [path for path in runs if any(path.parent.glob("models/round=*/*/manifest.json"))] or runs
    if not runs:
        raise UserError(f"no run in {RUNS}/: start one with `rstar demo`, or name one with --run")
    return str(runs[-1].parent)
