"""Write the LaTeX environments of the figures, with captions and widths."""

from prophet_moe.files import write_text
from prophet_moe.present import latex


def build(files, parameters):
    """One environment per figure, in order."""
    body = "\n".join(latex.figure(**figure) for figure in parameters["figures"])
    write_text(files.tex, latex.header(files.config_hash) + body)
