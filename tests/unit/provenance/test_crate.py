"""The RO-Crate of a run: what it tells, and that it meets its profile."""

import io
import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from requests.adapters import HTTPAdapter
from requests_cache import CachedSession
from rocrate_validator import models, services
from urllib3 import HTTPResponse

from prophet_moe.errors import UserError
from prophet_moe.files import sha256, write_json
from prophet_moe.provenance.citation import read_citation
from prophet_moe.provenance.crate import MEDIA_TYPES, PROFILES, TERMS, Texts, run_crate
from prophet_moe.provenance.lineage import jobs_behind, script_of
from prophet_moe.provenance.tracked import tracked_files
from tests.conftest import ROOT
from tests.unit.provenance.conftest import CAPTIONS, MEASURED, OUTPUTS, RULES

pytestmark = pytest.mark.filterwarnings("ignore:ConjunctiveGraph:DeprecationWarning")
PROFILE, BASE = "provenance-run-crate-0.5", "ro-crate-1.1"
"""Names by which the validator knows the crate's profile, and what that is built on."""
METADATA = "ro-crate-metadata.json"
SHIPPED_TERMS = files("rocrate") / "data/ro-crate.jsonld"
"""RO-Crate's list of terms as the package rocrate ships it: what the address of a crate's context holds."""
SIDECARS = [path for part in ("figures", "tables", "paper") for path in sorted((ROOT / part).rglob("*.prov.json"))]


def described(outputs=OUTPUTS, tracked=None) -> dict[str, Any]:
    """The crate of the current project."""
    jobs = jobs_behind(map(Path, outputs))
    return run_crate(outputs, jobs, Texts(RULES, CAPTIONS), read_citation(), tracked or tracked_files())


@pytest.fixture(scope="module")
def crate(small_project) -> dict[str, Any]:
    """The crate of the small project."""
    return described()


@pytest.fixture(scope="module")
def entities(crate) -> dict[str, dict[str, Any]]:
    """The entities of that crate by their identifiers."""
    return {entity["@id"]: entity for entity in crate["@graph"]}


class Shipped(HTTPAdapter):
    """Answers from the package rocrate in place of the network."""

    def send(self, request, **options):
        """Give the list of terms, whatever is asked for."""
        kind = {"Content-Type": "application/ld+json"}
        told = HTTPResponse(io.BytesIO(SHIPPED_TERMS.read_bytes()), kind, status=200, preload_content=False)
        return self.build_response(request, told)


@pytest.fixture
def issues(tmp_path, monkeypatch, small_project) -> Callable[[dict[str, Any], str], list[str]]:
    """Validate a crate of the small project without a network: what a profile requires and the crate lacks."""
    cache = tmp_path / "cache"

    def refuse(*to: object) -> None:
        raise AssertionError(f"the network is used: {to}")

    def validate(crate: dict[str, Any], profile: str) -> list[str]:
        with CachedSession(str(cache), backend="sqlite") as session:
            session.mount("https://", Shipped())
            session.get(crate["@context"][0])
        write_json(Path(METADATA), crate)
        monkeypatch.setattr(socket.socket, "connect", refuse)
        settings = services.ValidationSettings(
            rocrate_uri=".",
            profile_identifier=profile,
            requirement_severity=models.Severity.REQUIRED,
            offline=True,
            cache_path=cache,
        )
        return [f"{issue.check.identifier}: {issue.message}" for issue in services.validate(settings).get_issues()]

    yield validate
    Path(METADATA).unlink(missing_ok=True)


def test_crate_meets_its_profiles_without_a_network(crate, issues):
    assert issues(crate, PROFILE) == []


def test_validator_finds_what_a_crate_lacks(crate, issues):
    lacking = [
        {name: value for name, value in entity.items() if (entity["@id"], name) != ("./", "license")}
        for entity in crate["@graph"]
    ]
    found = issues(crate | {"@graph": lacking}, BASE)
    assert found and all("license" in issue for issue in found)


def test_terms_that_rocrate_ships_are_those_of_the_crate(crate):
    shipped = json.loads(SHIPPED_TERMS.read_text(encoding="utf-8"))
    assert crate["@context"] == [shipped["@id"], TERMS]
    assert set(TERMS).isdisjoint(shipped["@context"])


def test_crate_names_title_date_authors_and_licence(entities):
    root = entities["./"]
    told = [root[name] for name in ("name", "description", "version", "datePublished")]
    assert told == ["Small project", "A project for tests.", "1.2.3", "2001-02-03"]
    assert root["license"] == {"@id": "https://spdx.org/licenses/Apache-2.0"}
    authors = [entities[author["@id"]] for author in root["author"]]
    assert [(author["@type"], author["name"]) for author in authors] == [
        ("Organization", "The makers"),
        ("Person", "Ada Lovelace"),
    ]
    assert [profile["@id"] for profile in root["conformsTo"]] == list(PROFILES)


def test_outputs_have_hash_type_size_caption_and_sidecar(entities):
    for path, kind in zip(OUTPUTS, ("text/csv", "application/pdf", "image/png"), strict=True):
        told = entities[path]
        assert (told["sha256"], told["encodingFormat"]) == (sha256(Path(path)), kind)
        assert told["contentSize"] == str(Path(path).stat().st_size)
        assert told["description"] == (CAPTIONS.get(path) or CAPTIONS["figures/figure"])
        assert entities[told["subjectOf"]["@id"]]["encodingFormat"] == "application/json"


def test_a_job_names_script_inputs_parameters_and_outputs(entities):
    (job,) = (entity for name, entity in entities.items() if name.startswith("#job-counting-"))
    assert job["instrument"] == {"@id": "workflow/studies/counting/compute.py"}
    assert [made["@id"] for made in job["result"]] == sorted(OUTPUTS)
    measured, *parameters = (entities[given["@id"]] for given in job["object"])
    assert {parameter["name"]: parameter["value"] for parameter in parameters} == {"batch": 4, "limits": "[1, 2]"}
    assert (measured["@id"], measured["sha256"]) == (f"#{MEASURED}", sha256(Path(MEASURED)))


def test_intermediate_results_lead_on_to_recorded_inputs(entities):
    (job,) = (entity for name, entity in entities.items() if name.startswith("#job-measure-"))
    assert job["result"] == {"@id": f"#{MEASURED}"}
    assert {"@id": "config/settings.yaml"} in job["object"]
    assert entities["config/"]["hasPart"] == {"@id": "config/settings.yaml"}


def test_the_run_goes_from_folders_to_folders(entities):
    assert entities["#run"]["object"] == {"@id": "config/"}
    assert entities["#run"]["result"] == [{"@id": "figures/"}, {"@id": "tables/"}]
    assert entities["Snakefile"]["step"] == [{"@id": "#rule-counting"}, {"@id": "#rule-measure"}]
    assert entities[entities["Snakefile"]["programmingLanguage"]["@id"]]["name"] == "Snakemake"


def test_an_input_that_is_not_tracked_is_only_named(small_project):
    tracked = set(tracked_files()) - {"config/settings.yaml"}
    found = {entity["@id"] for entity in described(tracked=tracked)["@graph"]}
    assert "#config/settings.yaml" in found
    assert "config/settings.yaml" not in found


def test_an_output_without_a_caption_has_that_of_its_rule():
    texts = Texts(RULES, CAPTIONS)
    assert texts.of("figures/figure.pdf", "counting") == CAPTIONS["figures/figure"]
    assert texts.of("tables/other.csv", "counting") == "Count."


def test_the_rule_writes_the_same_bytes_at_each_run(crate, small_project):
    target, script = "results/crate/ro-crate-metadata.json", ROOT / "workflow/scripts/crate.py"
    inputs = {"code": [], "citation": "CITATION.cff", "texts": "results/captions/crate.json", "made": [*OUTPUTS]}
    command = [sys.executable, "-m", "prophet_moe.provenance.job", str(script)]
    given = [json.dumps({"inputs": inputs, "outputs": {"metadata": target}}), "{}"]
    subprocess.run([*command, *given], env=os.environ | {"PYTHONHASHSEED": "7"}, check=True)
    written = Path(target).read_text(encoding="utf-8")
    write_json(Path("again.json"), crate)
    assert written == Path("again.json").read_text(encoding="utf-8")
    assert str(small_project) not in written


def test_an_output_that_was_edited_is_one_line(small_project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("out.csv").write_text("a\n")
    with pytest.raises(UserError, match=r"out\.csv: no sidecar\. Run: snakemake --cores 8 --force out\.csv"):
        jobs_behind([Path("out.csv")])


@pytest.mark.parametrize(
    ("key", "problem"), [("date-released", "date-released"), ("authors", "authors"), ("title", "title")]
)
def test_a_citation_that_lacks_a_key_is_one_line(small_project, tmp_path, key, problem):
    lines = Path("CITATION.cff").read_text().split("authors:")[0] if key == "authors" else None
    kept = [line for line in Path("CITATION.cff").read_text().splitlines() if not line.startswith(f"{key}:")]
    (tmp_path / "CITATION.cff").write_text(lines or "\n".join(kept))
    with pytest.raises(UserError, match=rf"CITATION\.cff: {problem}: "):
        read_citation(tmp_path / "CITATION.cff")


def test_citation_and_package_agree():
    citation = read_citation(ROOT / "CITATION.cff")
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation.version, citation.license) == (package["version"], package["license"])


def test_committed_outputs_have_a_script_and_a_media_type():
    assert len(SIDECARS) > 100
    for path in SIDECARS:
        told = json.loads(path.read_text(encoding="utf-8"))
        assert (ROOT / script_of(told["rule"], told["code"])).is_file()
        assert Path(told["output"]).suffix in MEDIA_TYPES
