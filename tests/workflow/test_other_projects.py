"""Builds of other copies from nothing: with another model and GPU."""

import shutil

import pandas as pd


def test_a_new_model_and_a_new_gpu_appear_everywhere(project):
    """One new file and one new entry; no code."""
    model = (
        (project.root / "config/models/Mixtral-8x7B.yaml")
        .read_text()
        .replace("name: Mixtral-8x7B\n", "name: Mixtral-tiny\n", 1)
    )
    (project.root / "config/models/Mixtral-tiny.yaml").write_text(model.replace("layers: 32", "layers: 8"))
    gpus = project.root / "config/gpus.yaml"
    gpus.write_text(
        gpus.read_text() + "L40S-48GB: {memory_nominal_gb: 48, memory_visible_gib: 44.4, hbm_gb_per_s: 864,"
        " link_gb_per_s: 31.5, peak_tflops: 362, sources: [NVIDIA L40S datasheet]}\n"
    )
    shutil.copy(project.root / "config/overlays/small.yaml", project.root / "mine.yaml")
    with (project.root / "mine.yaml").open("a") as stream:
        stream.write(
            "models: [DeepSeek-MoE-16B, Mixtral-8x7B, Mixtral-tiny, Switch-Base-128]\ngpus: [A100-80GB, L40S-48GB]\n"
        )
    text = (project.root / "mine.yaml").read_text().split("\n")
    kept = [
        line for line in text if not line.startswith(("models: [DeepSeek-MoE-16B, Mixtral-8x7B, Switch", "gpus: [V100"))
    ]
    (project.root / "mine.yaml").write_text("\n".join(kept))
    shown = ("paper/generated/table1.tex", "results/notebooks/figure2_kv_extension_by_model.ipynb")
    project.build(*shown, "tables/table11_context_gained.csv", "--configfile", "mine.yaml")

    gained = pd.read_csv(project.root / "tables/table11_context_gained.csv")
    assert {("Mixtral-tiny", "L40S-48GB")} <= set(zip(gained["model"], gained["gpu"], strict=True))
    record = pd.read_csv(project.root / "tables/data/prophet_kv_extension_data.csv")
    assert set(record["model"]) >= {"Mixtral-tiny", "Mixtral-8x7B"}
    assert set(record["gpu"]) == {"A100-80GB", "L40S-48GB"}
    assert "Mixtral-tiny" in (project.root / "tables/table2_average_extension.csv").read_text()
    assert "Mixtral-tiny" in (project.root / "paper/generated/table1.tex").read_text()
    assert "Mixtral-tiny" in (project.root / "results/notebooks/figure2_kv_extension_by_model.ipynb").read_text()
