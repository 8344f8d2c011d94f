import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ssltransfer.artifacts.files import ArtifactError, write_json
from ssltransfer.artifacts.workdir import WorkDir, clean


def manifest(root: Path, spec: str = '{"k":1}', inputs: dict[str, list[Path]] | None = None) -> WorkDir:
    return WorkDir("cluster", root / "cluster" / "c" / "manifest.json", spec, inputs or {})


def metrics(root: Path, model: str, spec: str = '{"k":1}') -> WorkDir:
    return WorkDir("evaluate", root / "evaluate" / "e" / f"{model}.json", spec, {})


def finish_metrics(work: WorkDir) -> None:
    work.write_run_info()
    write_json(work.output, {"stage": "evaluate"})


def test_workdir_refuses_second_copy(tmp_path: Path) -> None:
    with manifest(tmp_path) as work:
        (work.folder / "checkpoint").write_text("half")
        with pytest.raises(
            ArtifactError, match=f"another copy of this job is running .*process {os.getpid()}"
        ) as refusal:
            manifest(tmp_path).__enter__()
        assert "\n" not in str(refusal.value)
        assert (work.folder / "checkpoint").read_text() == "half"
        # Another spec, or another model of the same evaluation, is another job.
        with manifest(tmp_path, '{"k":2}'), metrics(tmp_path, "a"), metrics(tmp_path, "b"):
            pass
    with manifest(tmp_path) as again:
        assert (again.folder / "checkpoint").read_text() == "half"


WITHOUT = """
#include <errno.h>
#include <sys/stat.h>
int flock(int file, int how) { errno = ENOSYS; return -1; }
int fsync(int file) {
    struct stat status;
    fstat(file, &status);
    if (S_ISDIR(status.st_mode)) { errno = EINVAL; return -1; }
    return 0;
}
"""
JOB = """
import sys
from pathlib import Path
from ssltransfer.artifacts.workdir import WorkDir
with WorkDir("cluster", Path(sys.argv[1]), "{}", {}) as work:
    work.finish({"made": True})
"""


def test_workdir_works_without_flock_and_without_fsync_of_folders(tmp_path: Path) -> None:
    """As on Lustre, and on CIFS."""
    (tmp_path / "without.c").write_text(WITHOUT)
    library = tmp_path / "without.so"
    try:
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "without.c"], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a C compiler")
    output = tmp_path / "c" / "manifest.json"
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    run = subprocess.run([sys.executable, "-c", JOB, output], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(output.read_text())["made"] and "this file system has no locks" in run.stderr


def test_workdir_shards_share_folder_only_with_shards(tmp_path: Path) -> None:
    output = manifest(tmp_path).output

    def part(name: str) -> WorkDir:
        return WorkDir("cluster", output, '{"k":1}', {}, shard=name)

    with part("1-of-2") as first, part("2-of-2") as second:
        assert first.folder == second.folder == manifest(tmp_path).folder
        for other in (part("1-of-2"), part("2-of-3"), part("1-of-12"), manifest(tmp_path)):
            with pytest.raises(ArtifactError, match=f"another copy of this job is running .*process {os.getpid()}"):
                other.__enter__()
        first.write_run_info(images=1)
        assert not output.with_name("run.json").exists()
        assert json.loads((first.folder / "1-of-2.run.json").read_text())["images"] == 1
    with part("1-of-3"), part("3-of-3"), pytest.raises(ArtifactError, match="another copy"):
        part("2-of-2").__enter__()
    with manifest(tmp_path), pytest.raises(ArtifactError, match="another copy"):
        part("1-of-2").__enter__()


def test_workdir_lock_is_released_when_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ssltransfer.artifacts.workdir import WorkDir\n"
        "with WorkDir('cluster', Path(sys.argv[1]), '{\"k\":1}', {}): print('in', flush=True); time.sleep(60)"
    )
    output = manifest(tmp_path).output
    process = subprocess.Popen([sys.executable, "-c", code, str(output)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    with pytest.raises(ArtifactError, match=f"process {process.pid}"):
        manifest(tmp_path).__enter__()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with manifest(tmp_path):
        pass
    process.stdout.close()


def test_workdir_key_depends_on_spec_and_content(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for file in (first, second):
        file.write_text("same")
    key = manifest(tmp_path, inputs={"data": [first]}).key
    assert manifest(tmp_path, inputs={"data": [second]}).key == key, "the key depends on the name of an input file"
    assert manifest(tmp_path, '{"k":2}', {"data": [first]}).key != key
    assert manifest(tmp_path, inputs={"val": [first]}).key != key
    assert manifest(tmp_path, inputs={"data": [first, second]}).key != key
    second.write_text("other")
    assert manifest(tmp_path, inputs={"data": [second]}).key != key
    with pytest.raises(ArtifactError, match="third: missing; run the stage"):
        manifest(tmp_path, inputs={"data": [tmp_path / "third"]})


def test_manifest_is_deterministic(tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        with manifest(tmp_path) as work:
            work.finish({"answer": 42}, device="some", images=3.5)
        written.append(work.output.read_bytes())
    assert written[0] == written[1]
    content = json.loads(written[0])
    assert content == {"stage": "cluster", "spec": {"k": 1}, "inputs": {}, "work": work.key, "answer": 42}
    run = json.loads((work.output.parent / "run.json").read_text())
    assert run["images"] == 3.5 and run["seconds"] >= 0 and run["peak_memory_mb"] > 0


def test_workdir_writes_run_file_per_metrics_file(tmp_path: Path) -> None:
    for model in ("a", "b.v2"):
        with metrics(tmp_path, model) as work:
            work.write_run_info(images=model)
    folder = tmp_path / "evaluate" / "e"
    assert sorted(path.name for path in folder.glob("*.run.json")) == ["a.run.json", "b.v2.run.json"]
    assert json.loads((folder / "a.run.json").read_text())["images"] == "a"


def test_clean_removes_obsolete_work_directories(tmp_path: Path) -> None:
    folders: dict[str, Path] = {}
    for spec in ("old", "new"):
        with manifest(tmp_path, f'{{"k":"{spec}"}}') as work:
            folders[f"cluster {spec}"] = work.folder
            work.finish({})
        with metrics(tmp_path, "a", f'{{"k":"{spec}"}}') as work:
            folders[f"a {spec}"] = work.folder
            finish_metrics(work)
        with metrics(tmp_path, "b", f'{{"k":"{spec}"}}') as work:
            folders[f"b {spec}"] = work.folder  # killed before it had a result
    assert set(clean(tmp_path)) == {folders["cluster old"], folders["a old"]}
    assert {name for name, folder in folders.items() if folder.is_dir()} == {"cluster new", "a new", "b old", "b new"}
    assert clean(tmp_path) == []


def test_clean_keeps_running_job(tmp_path: Path) -> None:
    with manifest(tmp_path, '{"k":"new"}') as work:
        work.finish({})
    with manifest(tmp_path, '{"k":"other"}') as busy:
        removed: list[Path] = []
        thread = threading.Thread(target=lambda: removed.extend(clean(tmp_path)))
        thread.start()
        thread.join()
        assert removed == [] and busy.folder.is_dir()
    assert clean(tmp_path) == [busy.folder]


def test_workdir_restores_removed_output_without_computing(tmp_path: Path) -> None:
    output = tmp_path / "x" / "manifest.json"
    with WorkDir("pretext", output, "{}", {}) as work:
        (output.parent / "backbone").write_text("weights")
        work.finish({"k": 1}, files=("backbone",))
    before = output.read_bytes()
    output.unlink()  # as Snakemake does with an output whose end it did not see
    with WorkDir("pretext", output, "{}", {}) as work:
        assert work.is_cached()
    assert output.read_bytes() == before
    with WorkDir("pretext", output, '{"k":2}', {}) as work:
        assert not work.is_cached()


def test_workdir_recomputes_missing_or_changed_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "x" / "manifest.json"
    with WorkDir("pretext", output, "{}", {}) as work:
        (output.parent / "backbone").write_text("weights")
        work.finish({}, files=("backbone",))
        (output.parent / "backbone").write_text("other weights")
        assert not work.is_cached()
        (output.parent / "backbone").write_text("weights")
        assert work.is_cached()
        monkeypatch.setattr("ssltransfer.artifacts.workdir._code", lambda: "edited")
        assert not work.is_cached()
