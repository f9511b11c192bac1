"""The list of other people's data: found, checked, fetched, or told how to get."""

import functools
import http.server
import threading

import pytest

from prophet_moe.catalog import load_models
from prophet_moe.errors import UserError
from prophet_moe.files import sha256
from prophet_moe.routing import datasets, sequences
from prophet_moe.routing.counted import popularity, popularity_cv
from prophet_moe.routing.datasets import DataFile, Dataset, load_datasets
from prophet_moe.routing.importers import import_source, import_trace
from prophet_moe.routing.law import clustered_occupancy
from prophet_moe.routing.published import BATCHES, PUBLISHED, read_published
from prophet_moe.routing.trace import DECODE, PHASES, PREFILL, Origin, Trace
from tests.builders import uniform_trace
from tests.conftest import ROOT, published

KNOWN = load_datasets(ROOT / "config/datasets.yaml")


def dataset(folder, address="", **changes) -> Dataset:
    """A dataset of two files that lie in `folder`."""
    files = []
    for name in ("one.csv", "deep/two.csv"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
        there = f"{address}/{{commit}}/{name}" if address else ""
        files.append(DataFile(path=name, bytes=path.stat().st_size, sha256=sha256(path), address=there))
    fields = {"kind": "serving", "project": "p", "commit": "abc", "licence": "l", "citation": "c", "use": "u"}
    return Dataset(**fields, files=files, without_address="" if address else "ask for it", **changes)


@pytest.fixture
def served(tmp_path):
    """A folder, and its address on this machine."""
    root = tmp_path / "served"
    root.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_list_is_complete():
    for name, data in KNOWN.datasets.items():
        assert all(file.address or data.without_address for file in data.files), name
        if data.kind == "routing":
            assert datasets.router_named(data.model, {}, KNOWN).experts > 0


def test_routers_of_the_catalogue_and_of_the_list():
    models = load_models(ROOT / "config/models")
    v3 = datasets.router_named("DeepSeek-V3-671B", models, KNOWN)
    assert (v3.experts, v3.top_k, v3.layers[0], len(v3.layers)) == (256, 8, 3, 58)
    r1 = datasets.router_named("DeepSeek-R1", models, KNOWN)
    assert (r1.experts, r1.top_k, r1.layers) == (v3.experts, v3.top_k, v3.layers)
    with pytest.raises(UserError, match="unknown model 'gpt-oss-20B'; did you mean 'gpt-oss-20b'"):
        datasets.router_named("gpt-oss-20B", models, KNOWN)


def test_external_comes_before_the_folders_of_the_variable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = dataset(tmp_path / "second")
    monkeypatch.setenv(datasets.VARIABLE, f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    folders = datasets.data_folders()
    assert datasets.located("x", data, folders)[1] == tmp_path / "second/deep/two.csv"
    (tmp_path / "first").mkdir()
    (tmp_path / "first/one.csv").write_text("half of it")
    assert datasets.located("x", data, folders)[0] == tmp_path / "second/one.csv", "a folder must have all files"
    dataset(datasets.EXTERNAL / "x")
    assert datasets.located("x", data, folders)[0] == datasets.EXTERNAL / "x/one.csv"
    monkeypatch.delenv(datasets.VARIABLE)
    assert datasets.located("y", data, datasets.data_folders()) is None


def test_data_folders_relative_names_are_made_absolute(tmp_path, monkeypatch):
    """A run by name works in a folder of its own; relative names are meant from where it was started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(datasets.VARIABLE, f"mine:{tmp_path / 'other'}:")
    assert datasets.data_folders() == [tmp_path / "mine", tmp_path / "other"]


def test_a_changed_file_is_refused(tmp_path):
    data = dataset(tmp_path)
    paths = [tmp_path / file.path for file in data.files]
    datasets.check_files(data, paths)
    paths[1].write_text("deep/two.csX\n")
    with pytest.raises(UserError, match=r"two\.csv: is not the registered file"):
        datasets.check_files(data, paths)


@pytest.mark.parametrize(("stated", "found"), [("decode", PREFILL), ("prefill", DECODE)])
def test_a_dataset_of_another_phase_is_refused(tmp_path, stated, found):
    trace = uniform_trace([3, 2], 2, 4, 2)
    trace.phase[:] = found
    data = dataset(tmp_path, phase=stated)
    with pytest.raises(UserError, match=rf"datasets\.x\.phase: got '{stated}', expected '{PHASES[found]}'"):
        datasets.check_phase("x", data, trace)
    trace.phase[:] = PHASES.index(stated)
    assert datasets.check_phase("x", data, trace) is trace


@pytest.mark.parametrize(
    ("listed", "told"),
    [(None, "nothing"), ({"sequences": 3, "texts": 2}, r"\{sequences: 3, texts: 2\}")],
)
def test_a_dataset_that_holds_too_little_must_say_so(tmp_path, listed, told):
    trace = uniform_trace([3, 2], 2, 4, 2)
    expected = rf"datasets\.x\.unrepeated: got {told}, expected \{{sequences: 2, texts: 2\}}, which the data holds"
    with pytest.raises(UserError, match=expected):
        datasets.check_extent("x", dataset(tmp_path, unrepeated=listed), trace)
    told_right = dataset(tmp_path, unrepeated={"sequences": 2, "texts": 2})
    assert datasets.check_extent("x", told_right, trace) is trace


def test_a_dataset_that_holds_enough_need_not_say_it(tmp_path):
    trace = uniform_trace([3, 2, 4, 5], 2, 4, 2)
    assert datasets.check_extent("x", dataset(tmp_path), trace) is trace


def test_a_dataset_is_listed_with_what_it_holds():
    name = "gpt-oss-20b-decode"
    data = KNOWN.datasets[name]
    router = datasets.router_named(data.model, {}, KNOWN)
    trace = import_trace(data.importer, published(data.files[0].path), router, Origin(data.project, data.licence))
    assert datasets.check_extent(name, data, trace) is trace


@pytest.mark.parametrize("name", [name for name, data in KNOWN.datasets.items() if data.kind == "expert_cache"])
def test_sessions_of_expert_caches_are_read_as_listed(name):
    data = KNOWN.datasets[name]
    path = published(data.files[0].path)
    datasets.check_files(data, [path])
    router = datasets.router_named(data.model, {}, KNOWN)
    trace = import_trace(data.importer, path, router, Origin(data.project, data.licence))
    assert datasets.check_phase(name, data, trace).router.experts == 128
    assert f"{int((trace.phase == DECODE).sum())} decoded tokens" in data.use
    assert f"{trace.router.top_k} of {router.top_k} experts" in data.use


@pytest.mark.parametrize("name", [name for name, data in KNOWN.datasets.items() if data.kind == "popularity"])
def test_counted_popularity_gives_its_published_row(name):
    """Statistics of resources/observations/routing.csv follow from the data that the list names."""
    data = KNOWN.datasets[name]
    path = published(data.files[0].path)
    datasets.check_files(data, [path])
    router = datasets.router_named(data.model, load_models(ROOT / "config/models"), KNOWN)
    found = import_source(data.importer, path, router, Origin(data.project, data.licence))
    shares = sequences.popularity(found) if isinstance(found, Trace) else popularity(found)
    place = f"{data.project.removeprefix('https://github.com/')}@{data.commit} "
    (row,) = (
        row
        for row in read_published(ROOT / PUBLISHED)
        if row.source.startswith(place) and (row.text == name.split("-")[-1] or row.text in data.use)
    )
    cvs = popularity_cv(shares)
    assert (row.layers, row.experts, row.top_k) == (len(cvs), router.experts, router.top_k)
    assert [row.cv_layer_mean, row.cv_layer_min, row.cv_layer_max] == pytest.approx(
        [cvs.mean(), cvs.min(), cvs.max()], abs=5e-5
    )
    assert row.unique == pytest.approx(clustered_occupancy(shares, 0.0, BATCHES), abs=5.1e-4)


def test_fetching_checks_what_came(tmp_path, monkeypatch, served):
    root, address = served
    monkeypatch.chdir(tmp_path)
    data = dataset(root / "abc", address)
    paths = datasets.fetch("x", data)
    assert [path.read_text() for path in paths] == ["one.csv\n", "deep/two.csv\n"]
    assert datasets.located("x", data, []) == paths
    assert datasets.how_to_get("x", data) == "prophet-moe data fetch x"

    paths[0].unlink()
    (root / "abc/one.csv").write_text("another")
    with pytest.raises(UserError, match="is not the registered file"):
        datasets.fetch("x", data)


def test_what_cannot_be_fetched_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="has no public address: ask for it"):
        datasets.fetch("x", dataset(tmp_path / "there"))
    unreachable = dataset(tmp_path / "there", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="could not be fetched: "):
        datasets.fetch("x", unreachable)
    assert not list(datasets.EXTERNAL.rglob("*.csv"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": "routing", "importer": "nope", "model": "m"}, "importer: got 'nope', expected one of arrays"),
        ({"kind": "routing", "importer": "arrays"}, "model: got ''"),
        ({"kind": "expert_cache", "importer": "lines"}, "model: got ''"),
        ({"phase": "decoding"}, "phase: got 'decoding'"),
        ({"without_address": ""}, "without_address: got ''"),
        ({"files": []}, "files: "),
    ],
)
def test_an_incomplete_entry_is_refused(tmp_path, change, expected):
    import yaml

    entry = dataset(tmp_path).model_dump() | change
    path = tmp_path / "datasets.yaml"
    path.write_text(yaml.safe_dump({"routers": {}, "datasets": {"x": entry}}))
    with pytest.raises(UserError, match=rf"datasets\.yaml: datasets\.x\.{expected}"):
        load_datasets(path)
