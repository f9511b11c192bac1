"""Turn other people's routing data into a trace folder."""

from prophet_moe.routing import store
from prophet_moe.routing.datasets import Dataset, check_extent, check_files, check_phase
from prophet_moe.routing.importers import import_trace
from prophet_moe.routing.trace import Origin, Router


def build(files, parameters):
    """Check the files against what is listed, and import the first of them."""
    dataset, router = Dataset(**parameters["dataset"]), parameters["router"]
    check_files(dataset, files.sources)
    origin = Origin(f"{dataset.project} {dataset.commit}", dataset.licence, dataset.files[0].sha256)
    router = Router(router["model"], router["experts"], router["top_k"], tuple(router["layers"]))
    trace = import_trace(dataset.importer, files.sources[0], router, origin)
    for check in (check_phase, check_extent):
        check(parameters["name"], dataset, trace)
    store.write_trace(files.trace.parent, trace)
