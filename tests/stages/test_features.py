from __future__ import annotations

import multiprocessing
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssltransfer.api import Embeddings
from ssltransfer.artifacts import features as artifact
from ssltransfer.artifacts.features import open_features
from ssltransfer.artifacts.files import ArtifactError, read_json, write_json
from ssltransfer.artifacts.index import Index, read_index, write_index
from ssltransfer.config.backbones import BackboneOptions, CaffeNet, HogWords, ResNet18, Vgg16
from ssltransfer.config.base import ConfigError, content_digest
from ssltransfer.config.entities import Features
from ssltransfer.config.protocols import Pool
from ssltransfer.data.image_io import read
from ssltransfer.models.backbone import Backbone, LayerError
from ssltransfer.models.build import build_backbone
from ssltransfer.models.pooling import pooled_shape
from ssltransfer.models.weights import read_model, write_model
from ssltransfer.stages import features
from ssltransfer.training.devices import Devices
from ssltransfer.training.extraction import FeatureExtractor
from tests.helpers import HELPERS
from tests.helpers.pretended_cuda import CUDA, on_gpu

# Children are forks of a server that has torch loaded, so that a kill costs no start; said before anything starts it.
multiprocessing.set_forkserver_preload(["ssltransfer.stages.features", "ssltransfer.stages.pretext"])

SMALL = CaffeNet(width_mult=0.125, img_size=48, stem_stride=2)
CHUNK = 10 * 48 * 16 * 2  # bytes: ten images' conv4 pooled to 4x4


def model_of(folder: Path, backbone: Backbone | BackboneOptions = SMALL, seed: int = 0) -> Path:
    if isinstance(backbone, BackboneOptions):
        backbone = build_backbone(backbone, include_top=True, seed=seed)
    write_json(folder / "manifest.json", {"stage": "pretext", **write_model(folder, backbone, "per-image", {})})
    return folder / "manifest.json"


def spec_of(layer: str = "conv4", **more: Any) -> Features:
    return Features.model_validate({"model": "m", "layer": layer, "pool": {"max": 4}, **more})


def values_of(output: Path) -> np.ndarray:
    store, _ = open_features(output)
    return store.read(slice(0, store.shape[0]))


@pytest.mark.parametrize(
    ("options", "layer", "side", "dims"),
    [(CaffeNet(), "conv4", 5, 9600), (Vgg16(), "conv4_3", 4, 8192), (Vgg16(bn=False), "conv4_3", 4, 8192)],
)
def test_features_have_published_dimensions(options: BackboneOptions, layer: str, side: int, dims: int):
    with torch.device("meta"):
        shape = build_backbone(options, include_top=False).shapes()[layer]
    assert np.prod(pooled_shape(shape, Pool(max=side))) == dims


def test_features_of_patches_are_the_mean_of_pooled_patches(tmp_path: Path, objects_path: Path):
    """Kolesnikov et al. 2019, code: maps of B x 9 patches are pooled, then averaged over the nine."""
    model, output = model_of(tmp_path / "m"), tmp_path / "f" / "manifest.json"
    spec = spec_of(pool={"max": 2}, patches=True, precision="float32")
    features.run(spec, model=model, data=objects_path, output=output, threads=1)
    found, index, loaded = values_of(output), read_index(objects_path), read_model(model)
    for row in (0, 47):
        # Short side 168, the center 144, nine patches of 48.
        image = read(index.path(row))[None].float()
        resized = F.interpolate(image, (168, 168), mode="bilinear", antialias=True, align_corners=False).round()
        maps = []
        for y in (12, 60, 108):
            for x in (12, 60, 108):
                patch = resized[:, :, y : y + 48, x : x + 48]
                patch = (patch - patch.mean()) / patch.std(correction=0)
                maps.append(loaded.backbone(patch, ["conv4"])["conv4"][0])
        expected = F.adaptive_max_pool2d(torch.stack(maps), 2).mean(0).flatten()
        reverse = F.adaptive_max_pool2d(torch.stack(maps).mean(0), 2).flatten()
        tolerance = 0.02 * float(expected.max())
        assert np.allclose(found[row], expected, atol=tolerance)
        assert not np.allclose(reverse, expected, atol=tolerance)


@pytest.mark.parametrize("pool", [{"max": 4}, {"avg": 3}, None], ids=["max", "avg", "whole"])
def test_features_rows_are_in_index_order(
    pool: dict[str, int] | None, tmp_path: Path, objects_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(artifact, "CHUNK_BYTES", CHUNK)
    model, output = model_of(tmp_path / "m"), tmp_path / "f" / "manifest.json"
    features.run(spec_of(pool=pool, precision="float32"), model=model, data=objects_path, output=output, threads=1)
    found = values_of(output)
    index, loaded = read_index(objects_path), read_model(model)
    assert len(found) == len(index)
    for row in (0, 9, 10, 47):
        # The published preparation, by hand: short side 54 for a crop of 48 (256 for 227), the center of it.
        image = read(index.path(row))[None].float()
        resized = F.interpolate(image, (54, 54), mode="bilinear", antialias=True, align_corners=False).round()
        view = resized[:, :, 3:51, 3:51]
        view = (view - view.mean()) / view.std(correction=0)
        layer = loaded.backbone(view, ["conv4"])["conv4"]
        if pool and "max" in pool:
            layer = F.adaptive_max_pool2d(layer, 4)
        elif pool:
            layer = F.adaptive_avg_pool2d(layer, 3)
        assert np.allclose(found[row], layer.flatten(), atol=0.02 * float(layer.max()))
    paths, about = open_features(output)[0].description()
    assert paths == list(index.paths) and about["classes"] == index.classes
    assert (about["model"], about["layer"], about["dataset"], about["weights"]) == ("m", "conv4", "f", loaded.digest)
    manifest = read_json(output)
    assert manifest["index"] == index.fingerprint and manifest["model"] == loaded.digest
    assert manifest["layer_shape"][0] == 48 and manifest["shape"] == list(found.shape)


def test_features_float16_is_rounded_float32(tmp_path: Path, objects_path: Path):
    model = model_of(tmp_path / "m")
    found = []
    for precision in ("float16", "float32"):
        output = tmp_path / precision / "manifest.json"
        features.run(spec_of(precision=precision), model=model, data=objects_path, output=output, threads=1)
        found.append(values_of(output))
    assert found[0].dtype == np.float16 and np.array_equal(found[0], found[1].astype(np.float16))


@pytest.mark.gpu
def test_features_on_a_gpu_agree_with_the_cpu(tmp_path: Path, objects_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, found = model_of(tmp_path / "model"), []
    for device in (torch.device("cpu"), CUDA):
        monkeypatch.setattr(features, "plan_devices", lambda threads, device=device: Devices(device, 0))
        output = tmp_path / device.type / "manifest.json"
        with on_gpu() as cuda:
            features.run(spec_of(), model=model, data=objects_path, output=output, threads=1)
        assert not cuda.faults
        found.append(values_of(output).astype(np.float32))
    # bfloat16 has 8 bits.
    assert np.linalg.norm(found[0] - found[1]) < 0.02 * np.linalg.norm(found[0])


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_features_of_a_file_equal_those_of_the_model_that_wrote_it(suffix: str, tmp_path: Path, objects_path: Path):
    """The file of `ssltransfer embed` in another order, with an image that the dataset does not have."""
    model, index = model_of(tmp_path / "m"), read_index(objects_path)
    features.run(spec_of(), model=model, data=objects_path, output=tmp_path / "own" / "manifest.json", threads=1)
    extracted = FeatureExtractor(spec_of(precision="float32"), model, Devices(torch.device("cpu"), workers=0))
    (values,) = extracted.chunks(index, [slice(0, 48)], extracted.progress("test", [slice(0, 48)]))
    order = np.random.default_rng(0).permutation(48)
    paths = [index.paths[place] for place in order.tolist()]
    file = tmp_path / f"v{suffix}"
    Embeddings([*paths, "more.png"], np.concatenate([values[order], values[:1]]), index.root, {}).save(file)
    output = tmp_path / "file" / "manifest.json"
    spec = Features.model_validate({"file": str(file)})
    features.run(spec, data=objects_path, output=output, threads=1)
    assert np.array_equal(values_of(output), values_of(tmp_path / "own" / "manifest.json"))
    assert open_features(output, index=index.fingerprint)[1].origin["model"] == content_digest(str(file))

    Embeddings(paths[1:], values[order[1:]], index.root, {}).save(file)
    with pytest.raises(ConfigError, match="has changed since the configuration was read"):
        features.run(spec, data=objects_path, output=tmp_path / "other" / "manifest.json", threads=1)
    with pytest.raises(ArtifactError, match="no vector for 1 of the 48 images"):
        features.run(
            Features.model_validate({"file": str(file)}), data=objects_path, output=tmp_path / "o" / "m.json", threads=1
        )


def test_features_of_a_file_refuse_float16_overflow(tmp_path: Path, objects: Index, objects_path: Path):
    Embeddings(list(objects.paths), np.full((48, 3), 1e5, np.float32), objects.root, {}).save(tmp_path / "v.npz")
    with pytest.raises(ArtifactError, match="exceed float16; set precision"):
        features.run(
            Features.model_validate({"file": str(tmp_path / "v.npz")}),
            data=objects_path,
            output=tmp_path / "f" / "manifest.json",
            threads=1,
        )


def test_features_of_hog_words(tmp_path: Path, objects_path: Path):
    backbone = build_backbone(HogWords(vocabulary_size=12, img_size=48), include_top=True)
    backbone.load_state_dict({"vocabulary": torch.rand(12, 36)})
    write_json(tmp_path / "manifest.json", {"stage": "pretext", **write_model(tmp_path, backbone, "none", {})})
    output = tmp_path / "f" / "manifest.json"
    features.run(
        spec_of("words", pool=None), model=tmp_path / "manifest.json", data=objects_path, output=output, threads=1
    )
    assert np.allclose((values_of(output).astype(np.float64) ** 2).sum(1), 1, atol=1e-2)


def test_features_refuse_float16_overflow(tmp_path: Path, objects_path: Path):
    backbone = build_backbone(SMALL, include_top=False)
    backbone.get_parameter("conv4.weight").data *= 1e5
    model, output = model_of(tmp_path / "m", backbone), tmp_path / "f" / "manifest.json"
    with pytest.raises(ArtifactError, match=r"conv4 gives values up to \d+, which exceed float16; set precision"):
        features.run(spec_of(), model=model, data=objects_path, output=output, threads=1)
    assert not output.exists()
    features.run(spec_of(precision="float32"), model=model, data=objects_path, output=output, threads=1)
    assert values_of(output).max() > 65504


def test_features_refuse_missing_or_unpoolable_layers(tmp_path: Path, objects_path: Path):
    model, output = model_of(tmp_path / "m"), tmp_path / "f" / "manifest.json"
    with pytest.raises(LayerError, match="no layer 'conv6'; it has conv1, conv2"):
        features.run(spec_of("conv6"), model=model, data=objects_path, output=output, threads=1)
    with pytest.raises(LayerError, match="fc7 is a vector and cannot be pooled"):
        features.run(spec_of("fc7"), model=model, data=objects_path, output=output, threads=1)
    features.run(spec_of("fc7", pool=None), model=model, data=objects_path, output=output, threads=1)
    assert values_of(output).shape == (48, 512)


def test_features_do_not_reuse_other_store(tmp_path: Path, objects_path: Path, objects_val_path: Path):
    """The same output, then another model: nothing of the first is found, and the manifest speaks of the second."""
    output = tmp_path / "f" / "manifest.json"
    found, models = [], []
    for seed in (0, 1):
        model = model_of(tmp_path / "m", seed=seed)
        features.run(spec_of(), model=model, data=objects_path, output=output, threads=1)
        found.append(values_of(output))
        models.append(read_json(output)["model"])
    assert models[0] != models[1] and not np.array_equal(found[0], found[1])
    with pytest.raises(ArtifactError, match="belong to another index"):
        open_features(output, index=read_index(objects_val_path).fingerprint)


def test_features_refuse_non_model(tmp_path: Path, objects_path: Path):
    write_json(tmp_path / "x.json", {"stage": "cluster"})
    with pytest.raises(ArtifactError, match="not the manifest of a model"):
        features.run(
            spec_of(), model=tmp_path / "x.json", data=objects_path, output=tmp_path / "f" / "m.json", threads=1
        )


def test_features_name_missing_image(tmp_path: Path, objects: Index):
    gone = Index(tmp_path, ["no.jpg"], objects.labels[:1], objects.classes, objects.sizes[:1], ["0"])
    write_index(tmp_path / "gone.parquet", gone)
    with pytest.raises(ArtifactError, match=r"no\.jpg: was readable when the index was made"):
        features.run(
            spec_of(),
            model=model_of(tmp_path / "m"),
            data=tmp_path / "gone.parquet",
            output=tmp_path / "f" / "m.json",
            threads=1,
        )


class Job:
    """An extraction in processes of its own."""

    def __init__(self, folder: Path, data: Path):
        self.context = multiprocessing.get_context("forkserver")
        self.folder, self.log = folder, folder / "log"
        self.paths = {"model": model_of(folder / "m"), "data": data, "output": folder / "manifest.json"}

    def start(self, kill: str = "", shard: str = "") -> multiprocessing.process.BaseProcess:
        given = {key: str(path) for key, path in self.paths.items()} | {"log": str(self.log), "kill": kill}
        if shard:
            given["output"] = str(self.folder / f"{shard}.json")
        settings = {"spec": spec_of().canonical(), "chunk_bytes": CHUNK, "shard": shard}
        script = str(HELPERS / "killed_features.py")
        process = self.context.Process(target=runpy.run_path, args=(script, given | settings))
        process.start()
        return process

    def run(self, kill: str = "", shard: str = "") -> int | None:
        process = self.start(kill, shard)
        process.join(120)
        return process.exitcode

    def written(self) -> list[str]:
        """Chunks in the order in which they were written."""
        return self.log.read_text().split()

    def results(self) -> dict[str, bytes]:
        store, _ = open_features(self.folder / "manifest.json")
        chunks = {str(chunk): store.chunk_file(chunk).read_bytes() for chunk in range(store.chunks)}
        return chunks | {"manifest": (self.folder / "manifest.json").read_bytes()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, objects_path: Path) -> Job:
    job = Job(tmp_path_factory.mktemp("undisturbed"), objects_path)
    assert job.run() == 0
    assert job.written() == ["0", "1", "2", "3", "4"]
    return job


def test_features_resume_at_next_chunk_when_killed(tmp_path: Path, objects_path: Path, undisturbed: Job):
    job = Job(tmp_path / "killed", objects_path)
    for kill in ("after 0", "half 2", "end"):
        assert job.run(kill) == -9
        assert not (job.folder / "manifest.json").exists()
    assert job.run() == 0
    # Only the chunk that was cut in half was computed again.
    assert job.written() == ["0", "1", "2", "2", "3", "4"]
    assert job.results() == undisturbed.results()
    assert not list(job.folder.rglob("*.partial"))


def test_features_shards_equal_one_job(tmp_path: Path, objects_path: Path, undisturbed: Job):
    job = Job(tmp_path / "shards", objects_path)
    running = [job.start(shard=f"{number}-of-3") for number in (1, 2, 3)]
    for process in running:
        process.join(120)
    assert [process.exitcode for process in running] == [0, 0, 0]
    assert not (job.folder / "manifest.json").exists()
    assert read_json(job.folder / "2-of-3.json")["chunks"].keys() == {"1", "4"}
    # Neither the job that writes the manifest nor shards of another division compute anything again.
    assert job.run() == 0 and job.run(shard="1-of-2") == 0
    assert sorted(job.written()) == ["0", "1", "2", "3", "4"]
    assert job.results() == undisturbed.results()


def test_features_killed_shard_resumes_and_last_job_completes(tmp_path: Path, objects_path: Path, undisturbed: Job):
    job = Job(tmp_path / "killed-shard", objects_path)
    assert job.run("half 2", shard="1-of-2") == -9
    assert job.run("after 2", shard="1-of-2") == -9
    assert job.written() == ["0", "2", "2"]
    assert job.run(shard="1-of-2") == 0
    assert job.written() == ["0", "2", "2", "4"]
    assert job.run() == 0
    assert job.written() == ["0", "2", "2", "4", "1", "3"]
    assert job.results() == undisturbed.results()


def test_features_refuse_invalid_shards(tmp_path: Path, objects_path: Path):
    for shard in ("0/8", "9/8", "3", "a-of-b", "0-of-0"):
        with pytest.raises(ArtifactError, match=f"--shard {shard}: not a shard; give one such as 3/8"):
            features.run(
                spec_of(), model=model_of(tmp_path / "m"), data=objects_path, output=tmp_path / "p.json", shard=shard
            )


@pytest.mark.slow
def test_features_two_processes_equal_one(tmp_path: Path, objects_path: Path):
    """As `--devices 2` starts them without a GPU: connected by gloo, one thread each, two chunks."""
    model = model_of(tmp_path / "m", ResNet18(img_size=48, stem_stride=1))
    spec = spec_of("conv1", pool=None, precision="float32").canonical()
    made = []
    for devices in (1, 2):
        output = tmp_path / str(devices) / "manifest.json"
        words = ["--spec", spec, "--model", model, "--data", objects_path, "--output", output, "--threads", devices]
        words = [sys.executable, "-m", "ssltransfer.cli", "features", *words, "--devices", devices]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert ("2 processes" in done.stdout) == (devices == 2)
        made.append(output.read_bytes())
    assert made[0] == made[1] and read_json(output)["shape"] == [48, 147456] and len(read_json(output)["chunks"]) == 2


def test_features_are_independent_of_workers(tmp_path: Path, objects_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(artifact, "CHUNK_BYTES", CHUNK)
    model = model_of(tmp_path / "m")
    found = []
    for workers in ("0", "1", "4"):
        monkeypatch.setenv("SSLTRANSFER_WORKERS", workers)
        output = tmp_path / workers / "manifest.json"
        features.run(spec_of(), model=model, data=objects_path, output=output, threads=1)
        found.append(output.read_bytes())  # with the digest of every chunk
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_features_stay_within_memory_budget(tmp_path: Path, objects_path: Path):
    budget = 128  # MB
    objects = read_index(objects_path)
    side = 48
    bytes_a_image = 64 * side * side * 2  # conv1 of a ResNet-18 with stride 1
    n = -(-4 * (budget << 20) // bytes_a_image)
    places = [place % len(objects) for place in range(n)]
    many = Index(
        objects.root,
        [objects.paths[place] for place in places],
        objects.labels[places],
        objects.classes,
        objects.sizes[places],
        [objects.digests[place] for place in places],
    )
    write_index(tmp_path / "many.parquet", many)
    model = model_of(tmp_path / "m", ResNet18(img_size=side, stem_stride=1))
    command = [sys.executable, str(HELPERS / "features_within.py")]
    command += [str(model), str(tmp_path / "many.parquet"), str(tmp_path / "f" / "manifest.json"), str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    made, held = map(int, done.stdout.split()[-2:])
    assert made >= 4 * (budget << 20) and held < budget << 20
