"""Describe a run as an RO-Crate, from the sidecars of its outputs."""

from prophet_moe.files import write_json
from prophet_moe.provenance.citation import read_citation
from prophet_moe.provenance.crate import Texts, run_crate
from prophet_moe.provenance.lineage import jobs_behind
from prophet_moe.provenance.tracked import tracked_files
from prophet_moe.validation import read_json


def build(files, parameters):
    """Follow the sidecars from the outputs to the recorded inputs, and write what they tell."""
    outputs = [path.as_posix() for path in files.made]
    jobs = jobs_behind(files.made)
    texts = Texts(**read_json(files.texts))
    write_json(files.metadata, run_crate(outputs, jobs, texts, read_citation(files.citation), tracked_files()))
