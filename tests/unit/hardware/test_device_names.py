"""Which device a measurement may be of: the words of its name, and its memory, for every GPU of the catalogue."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from prophet_moe.catalog import load_gpus
from prophet_moe.errors import UserError
from prophet_moe.hardware.profile import check_device
from tests.conftest import ROOT

GPUS = load_gpus(ROOT / "config/gpus.yaml")
DEVICES = {
    "V100-32GB": "Tesla V100-SXM2-32GB",
    "A100-40GB": "NVIDIA A100-SXM4-40GB",
    "A100-80GB": "NVIDIA A100-SXM4-80GB",
    "H100-80GB": "NVIDIA H100 80GB HBM3",
    "H200-141GB": "NVIDIA H200",
    "RTX4090-24GB": "NVIDIA GeForce RTX 4090",
    "RTX5090-32GB": "NVIDIA GeForce RTX 5090",
    "L40S-48GB": "NVIDIA L40S",
    "GH200-96GB": "NVIDIA GH200 480GB",
    "DGX-Spark-128GB": "NVIDIA GB10",
    "B200-180GB": "NVIDIA B200",
    "MI300X-192GB": "AMD Instinct MI300X",
    "RTX3090-24GB": "NVIDIA GeForce RTX 3090",
    "RTXPRO6000-96GB": "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
}
"""Names that the devices tell."""


def check(gpu: str, device: str) -> None:
    """Check a recording of a device with the memory of `gpu`."""
    machine = {"device": device, "memory_bytes": GPUS[gpu].memory_bytes("visible")}
    check_device(SimpleNamespace(metadata={"machine": machine}, folder=Path(gpu)), gpu, GPUS[gpu])


def test_every_gpu_accepts_its_own_device_and_no_other():
    assert set(DEVICES) == set(GPUS)
    for gpu in GPUS:
        check(gpu, DEVICES[gpu])
        for other in (name for name in GPUS if name.split("-")[0] != gpu.split("-")[0]):
            with pytest.raises(UserError):
                check(gpu, DEVICES[other])


def test_device_of_two_words_is_asked_for_by_both():
    with pytest.raises(UserError, match="got 'NVIDIA GeForce RTX 3090', expected a name with the words RTX 4090"):
        check("RTX4090-24GB", "NVIDIA GeForce RTX 3090")
