"""Fit laws to the recorded arrivals that are here, serve them, and keep both in resources/arrivals/."""

from pathlib import Path

from prophet_moe.files import write_json
from prophet_moe.serving.arrival_law import FOLDER, fit
from prophet_moe.serving.arrivals import READERS
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import write_table
from studies.dynamic_batching.compute import RECORDED, answered, lasting, services_of
from studies.dynamic_batching.study import RECORDED_FILES, DynamicBatchingSettings


def build(files, parameters):
    """Write a law for each trace, the rows of recorded arrivals, and what these rest on."""
    settings = DynamicBatchingSettings.model_validate(parameters["dynamic_batching"])
    arrivals = {}
    for name, (_, _, read) in READERS.items():
        source = parameters["sources"][name]
        arrivals[name] = read(Path(source.pop("path")), name)
        law = fit(arrivals[name], **source)
        write_json(FOLDER / f"{name}.json", law.model_dump())
    services = services_of(files, Scenario.model_validate(parameters["scenario"]), settings)
    frames = answered(services, arrivals, RECORDED, settings)
    for (table, name), frame in zip(RECORDED_FILES.items(), frames, strict=True):
        write_table(FOLDER / name, frame, table)
    rests = {service.model: service.told for service in services}
    write_json(FOLDER / "recorded.json", {"parameters": lasting(parameters), "rests_on": rests})
