"""Run notebooks with Papermill so that a wrong parameter is an error and two runs write the same bytes."""

import difflib
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.translators import PythonTranslator, papermill_translators

from prophet_moe.errors import UserError
from prophet_moe.files import atomic_write, write_text


class Parameters(PythonTranslator):
    """Writes parameters alike everywhere. Papermill would format them where Black happens to be installed."""

    @classmethod
    def codify(cls, parameters: dict[str, Any], comment: str = "Parameters") -> str:
        """Return the assignments of `parameters`, one line each, under a comment."""
        return super(PythonTranslator, cls).codify(parameters, comment)


papermill_translators.register("python", Parameters)


def execute(notebook: Path, parameters: dict[str, Any], executed: Path, page: Path) -> None:
    """Run `notebook` with exactly `parameters`; write the executed copy and its HTML page.

    An unknown or missing parameter, or a cell that fails, is a UserError; then nothing is written.
    """
    check_parameters(notebook, parameters)
    with atomic_write(executed) as partial:
        try:
            papermill.execute_notebook(
                notebook,
                partial,
                parameters=parameters,
                progress_bar=False,
                log_output=False,
                autosave_cell_every=0,
                request_save_on_cell_execute=False,
                shutdown_kernel="immediate",
            )
        except papermill.PapermillExecutionError as error:
            sys.stderr.write("\n".join(error.traceback) + "\n")
            problem = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
            raise UserError(str(notebook), problem.rstrip("."), "The log has the traceback.") from None
        result = _without_run_details(nbformat.read(partial, as_version=4))
        nbformat.write(result, partial)
    # The exporter's default templates link to content delivery networks; the pages must open offline.
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="")
    write_text(page, exporter.from_notebook_node(result, resources={"metadata": {"name": notebook.stem}})[0])


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """Refuse names that the notebook's `parameters` cell does not have, and names it has that are not given.

    Papermill itself runs on, and exits 0, with a misspelt parameter.
    """
    known = set(papermill.inspect_notebook(notebook))
    for name in sorted(set(parameters) - known):
        near = difflib.get_close_matches(name, known, n=1)
        expected = f"did you mean {near[0]!r}" if near else f"expected one of {', '.join(sorted(known))}"
        raise UserError(str(notebook), f"unknown parameter {name!r}; {expected}", "Correct the name.")
    for name in sorted(known - set(parameters)):
        raise UserError(
            str(notebook), f"parameter {name!r} is not given", "Pass it, or take it out of the parameters cell."
        )


def _without_run_details(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop times and versions, which differ from run to run, and name the cell that Papermill added."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("language_info", None)
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = f"injected-{number}"
    return notebook
