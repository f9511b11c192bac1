"""Keep what was computed of other people's data in resources/statistics/, and the settings that it depends on."""

from pathlib import Path

from prophet_moe.files import write_json, write_text

FOLDER = Path("resources/statistics")


def build(files, parameters):
    """Copy each table into the folder of its dataset, and write the settings of the replays beside them."""
    for path in files.statistics:
        write_text(FOLDER / path.parent.name / path.name, path.read_text())
    for kind, settings in parameters.items():
        for name, of_dataset in settings.items():
            write_json(FOLDER / name / f"{kind}.json", of_dataset)
