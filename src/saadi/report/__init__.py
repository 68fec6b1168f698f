"""The page a person looks at: one self-contained HTML file from a run's folder, and the table printed at the end."""

from __future__ import annotations

from saadi.report.page import results_table, write_page

__all__ = ["results_table", "write_page"]
