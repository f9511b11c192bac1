"""Run a notebook: the executed copy, its HTML page, and the figure it draws as PDF and PNG."""

from prophet_moe.present.execution import execute


def build(files, parameters):
    """Execute the notebook; it draws its figure into the given paths."""
    given = parameters | {
        "record": str(files.record),
        "stem": str(files.pdf.with_suffix("")),
        "config_hash": files.config_hash,
    }
    execute(files.notebook, given, files.executed, files.page)
