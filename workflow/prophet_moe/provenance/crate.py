"""The run as an RO-Crate: one JSON-LD document that tells of every output which job made it from what.

It follows the profile Provenance Run Crate 0.5, and with it Workflow Run Crate. Its root is the folder of the project,
or of the unpacked archive, and every path is relative to it. No clock time is kept of a run, so no action has one; the
only date is that of CITATION.cff.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rocrate.model.computationalworkflow import ComputationalWorkflow
from rocrate.model.contextentity import ContextEntity
from rocrate.model.entity import Entity
from rocrate.model.file import File
from rocrate.rocrate import ROCrate

from prophet_moe.files import canonical_hash, sha256
from prophet_moe.provenance.citation import Citation
from prophet_moe.provenance.lineage import Job
from prophet_moe.provenance.sidecar import sidecar_of

WORKFLOW = "Snakefile"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
"""Names and versions of the profiles that the crate follows, by their addresses."""
TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}
"""Terms that RO-Crate 1.1 does not have, from the vocabulary of Workflow Run Crate."""
COMPLETED = "http://schema.org/CompletedActionStatus"

INPUT_FOLDERS = {
    "config": "Settings of the experiment and of its looks, models, GPUs, links, engines and data sets.",
    "notebooks": "One notebook per figure, which draws it.",
    "resources": "Recorded inputs: traces, statistics, fitted laws, and what others published or measured.",
}
OUTPUT_FOLDERS = {
    "figures": "Figures as PDF and PNG, each with a sidecar that tells what it was made from.",
    "paper/generated": "LaTeX of the paper that is made from results: tables, numbers and figure environments.",
    "tables": "Tables as CSV and JSON, each with a sidecar that tells what it was made from.",
}
OTHER_FOLDERS = {"workflow": "The rules, the studies, the scripts and the library prophet_moe."}
FOLDERS = INPUT_FOLDERS | OUTPUT_FOLDERS | OTHER_FOLDERS
"""Folders that the crate describes, with a sentence on what they hold."""

DOCUMENTS = {
    "CITATION.cff": "Authors, version, licence and date of the artifact.",
    "LICENSE": "The text of the licence.",
    "README.md": "What this artifact is, what it finds, and how to run it.",
}
MEDIA_TYPES = {
    "": "text/plain",
    ".cff": "application/yaml",
    ".csv": "text/csv",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".py": "text/x-python",
    ".tex": "application/x-tex",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}
"""Media types by the suffix of a file."""
UNKNOWN_TYPE = "application/octet-stream"
"""The media type of every other file."""


class SteppedWorkflow(ComputationalWorkflow):
    """A workflow whose steps are told."""

    TYPES = [*ComputationalWorkflow.TYPES, "HowTo"]


@dataclass(frozen=True)
class Texts:
    """What the workflow says of its rules and outputs."""

    rules: Mapping[str, str]
    """What a rule does, by its name."""
    captions: Mapping[str, str] = field(default_factory=dict)
    """Captions by the path of an output, of a figure without its suffix."""

    def of(self, output: str, rule: str) -> str:
        """Return the caption of an output; where it has none, what its rule does."""
        found = self.captions.get(output) or self.captions.get(str(PurePosixPath(output).with_suffix("")))
        return found or self.rules[rule]


def run_crate(
    outputs: Collection[str], jobs: Sequence[Job], texts: Texts, citation: Citation, tracked: Collection[str]
) -> dict[str, Any]:
    """Return the JSON-LD document of a run whose `jobs` made `outputs`, from the project's root.

    `tracked` are the files of the project. Whatever else a job used or made is no part of the crate: it is named, with
    its hash, by an identifier that begins with #.
    """
    sidecars = {output: sidecar_of(Path(output)).as_posix() for output in sorted(outputs)}
    held = _Held(frozenset([*tracked, *sidecars, *sidecars.values()]))
    root = _root(held, citation)
    workflow = _workflow(held, citation, jobs)
    actions = [_job_action(held, job, texts, citation.version) for job in jobs]
    for output, sidecar in sidecars.items():
        told = held.file(sidecar, description=f"What made {output}: inputs, parameters, code and packages.")
        held.crate.get(output)["subjectOf"] = told
    used = {path for job in jobs for path in job.inputs} - {path for job in jobs for path in job.outputs}
    run = held.add(
        "#run",
        "CreateAction",
        name=f"Run of {WORKFLOW}",
        description="One run of the workflow, of which every job is described by an action of its own.",
        instrument=workflow,
        object=held.summary(used, INPUT_FOLDERS),
        result=held.summary(outputs, OUTPUT_FOLDERS),
        actionStatus=COMPLETED,
    )
    root["mentions"] = [run, *actions]
    _steps(held, workflow, jobs, actions, run)
    _formal_parameters(held, workflow)
    held.sort_parts()
    return _compact(held.crate.metadata.generate())


def _compact(document: dict[str, Any]) -> dict[str, Any]:
    """The document with every list of one value as that value, as RO-Crate recommends."""
    graph = [
        {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in entity.items()}
        for entity in document["@graph"]
    ]
    return document | {"@graph": graph}


class _Held:
    """The entities of a crate, each added once; a file is a part of the folder that it lies in, where that is told."""

    def __init__(self, paths: Collection[str]) -> None:
        self.crate = ROCrate(version="1.1")
        self.crate.metadata.extra_terms.update(TERMS)
        self.paths = paths

    def add(self, identifier: str, kind: str | list[str], /, **properties: Any) -> Entity:
        """Add an entity that is no file."""
        found = self.crate.get(identifier)
        return found or self.crate.add(ContextEntity(self.crate, identifier, {"@type": kind} | properties))

    def file(self, path: str, digest: str = "", kind: str | list[str] = "File", **properties: Any) -> Entity:
        """Add a file with its type, size and hash; one that is no part of the crate gets an identifier with #."""
        if path not in self.paths:
            told = "No part of the crate; a run of the workflow makes or reads it."
            given = {"name": path, "description": told, "encodingFormat": _media_type(path), "sha256": digest}
            return self.add(f"#{path}", "File", **given)
        found = self.crate.get(path)
        if found is None:
            found = File(self.crate, dest_path=path, properties={"@type": kind} | _measured(path, digest))
            self.crate.add(found)
            if folder := _folder_of(path):
                self.crate.root_dataset["hasPart"] = self.crate.root_dataset["hasPart"][:-1]
                self.folder(folder).append_to("hasPart", found)
        for name, value in properties.items():
            found[name] = value
        return found

    def folder(self, name: str) -> Entity:
        """Add a folder of FOLDERS, with what it holds."""
        told = {"name": name, "description": FOLDERS[name]}
        return self.crate.get(f"{name}/") or self.crate.add_dataset(dest_path=f"{name}/", properties=told)

    def summary(self, paths: Iterable[str], folders: Collection[str]) -> list[Entity]:
        """Return the folders among `folders` that hold `paths`, and the files that lie in none of them."""
        names = {path: _folder_of(path) if path in self.paths else "" for path in sorted(paths)}
        within = sorted({name for name in names.values() if name in folders})
        apart = [self.file(path) for path, name in names.items() if name not in folders]
        return [*map(self.folder, within), *apart]

    def sort_parts(self) -> None:
        """Put the parts of the root and of every folder in the order of their identifiers."""
        for whole in (self.crate.root_dataset, *(self.crate.get(f"{name}/") for name in FOLDERS)):
            if whole is not None:
                whole["hasPart"] = sorted(whole["hasPart"], key=lambda part: part.id)


def _folder_of(path: str) -> str:
    """The folder of FOLDERS that holds a path; empty where there is none."""
    return next((name for name in sorted(FOLDERS) if path.startswith(f"{name}/")), "")


def _media_type(path: str) -> str:
    return MEDIA_TYPES.get(PurePosixPath(path).suffix, UNKNOWN_TYPE)


def _measured(path: str, digest: str) -> dict[str, Any]:
    """Name, media type, size in bytes and hash of a file; the hash is computed where it is not given."""
    return {
        "name": path,
        "encodingFormat": _media_type(path),
        "contentSize": str(Path(path).stat().st_size),
        "sha256": digest or sha256(Path(path)),
    }


def _root(held: _Held, citation: Citation) -> Entity:
    """Describe the whole: title, version, authors, licence and date of CITATION.cff, profiles and first documents."""
    root = held.crate.root_dataset
    root["name"], root["version"] = citation.title, citation.version
    root["description"] = " ".join(citation.abstract.split())
    root["datePublished"] = citation.released.isoformat()
    root["license"] = held.add(
        f"https://spdx.org/licenses/{citation.license}",
        "CreativeWork",
        name=citation.license,
        description="The licence of sources and outputs; its text is in LICENSE.",
    )
    root["author"] = [
        held.add(f"#author-{number}", "Person" if author.is_person else "Organization", name=author.full_name)
        for number, author in enumerate(citation.authors, start=1)
    ]
    root["conformsTo"] = [
        held.add(at, "CreativeWork", name=name, version=version) for at, (name, version) in PROFILES.items()
    ]
    for path, description in DOCUMENTS.items():
        held.file(path, description=description)
    held.file("README.md")["about"] = root
    return root


def _workflow(held: _Held, citation: Citation, jobs: Iterable[Job]) -> Entity:
    """Add the main workflow, its language and the packages that it ran with."""
    packages = sorted({item for job in jobs for item in job.packages.items()})
    root = held.crate.root_dataset
    workflow = held.crate.add_workflow(
        dest_path=WORKFLOW,
        main=True,
        lang="snakemake",
        lang_version=dict(packages)["snakemake"],
        cls=SteppedWorkflow,
        properties=_measured(WORKFLOW, "") | {"name": f"Workflow of the {citation.title}", "version": citation.version},
    )
    workflow["author"], workflow["license"] = root["author"], root["license"]
    workflow["softwareRequirements"] = [_package(held, name, version) for name, version in packages]
    return workflow


def _package(held: _Held, name: str, version: str) -> Entity:
    """Add a Python package by its package URL (purl), or Python itself by its home page."""
    known = {"url": "https://www.python.org/"} if name == "python" else {"identifier": f"pkg:pypi/{name}@{version}"}
    return held.add(f"#package-{name}", "SoftwareApplication", name=name, softwareVersion=version, **known)


def _job_action(held: _Held, job: Job, texts: Texts, version: str) -> Entity:
    """Add a job: its script, what it read with which parameters, and what it made."""
    does = texts.rules[job.rule]
    tool = held.file(job.script, kind=["File", "SoftwareSourceCode"], description=does, version=version)
    inputs = [held.file(path, digest) for path, digest in sorted(job.inputs.items())]
    return held.add(
        f"#job-{job.rule}-{job.config_hash}",
        "CreateAction",
        name=f"{job.rule}: {', '.join(job.outputs)}",
        description=does,
        instrument=tool,
        object=[*inputs, *(_parameter(held, name, value) for name, value in sorted(job.parameters.items()))],
        result=[held.file(path, digest, description=texts.of(path, job.rule)) for path, digest in job.outputs.items()],
        actionStatus=COMPLETED,
    )


def _parameter(held: _Held, name: str, value: Any) -> Entity:
    """Add a parameter, once for all jobs that share its value; lists, mappings and null are told as JSON."""
    plain = value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return held.add(f"#parameter-{canonical_hash([name, value])[:12]}", "PropertyValue", name=name, value=plain)


def _steps(held: _Held, workflow: Entity, jobs: Sequence[Job], actions: Sequence[Entity], run: Entity) -> None:
    """Tell the rules as steps of the workflow, and that its engine ran each job as one of them."""
    steps = [
        held.add(
            f"#rule-{job.rule}",
            "HowToStep",
            name=job.rule,
            description=action["description"],
            workExample=action["instrument"],
        )
        for job, action in zip(jobs, actions, strict=True)
    ]
    controls = [
        held.add(
            f"#control-{job.rule}-{job.config_hash}",
            "ControlAction",
            name=f"Run of the step {job.rule}",
            instrument=step,
            object=action,
        )
        for job, step, action in zip(jobs, steps, actions, strict=True)
    ]
    workflow["step"] = list(dict.fromkeys(steps))
    workflow["hasPart"] = list(dict.fromkeys(action["instrument"] for action in actions))
    engine = next(package for package in workflow["softwareRequirements"] if package["name"] == "snakemake")
    held.add("#engine", "OrganizeAction", name="Run of Snakemake", instrument=engine, object=controls, result=run)


def _formal_parameters(held: _Held, workflow: Entity) -> None:
    """Tell the folders of inputs and outputs as parameters of the workflow."""
    for role, folders in (("input", INPUT_FOLDERS), ("output", OUTPUT_FOLDERS)):
        for name in folders:
            if folder := held.crate.get(f"{name}/"):
                folder["exampleOfWork"] = held.add(
                    f"#{role}-{name.replace('/', '-')}",
                    "FormalParameter",
                    name=name,
                    description=FOLDERS[name],
                    additionalType="Dataset",
                    workExample=folder,
                )
                workflow.append_to(role, folder["exampleOfWork"])
