"""The bundle for a machine without a network: each of its parts, and the whole where pip can."""

import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import small_checkpoint

from vs_vsr.models.basicvsr import BasicVSR
from vs_vsr.weights.loader import load_model

FOLDER = Path(__file__).resolve().parents[2] / "bundle"


def make_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_bundle", FOLDER / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = make_module()

# A driver as the loader meets it: it answers nothing before the interface is agreed on.
_DRIVER = r"""
#include <stdint.h>
#include <string.h>
static int agreed;
int32_t vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *v) { agreed = *v >= 2; return 0; }
static int32_t version(uint32_t *v) { *v = 4210987u; return 0; }
void (*vk_icdGetInstanceProcAddr(void *instance, const char *name))(void)
{
    (void)instance;
    if (!agreed || !strcmp(name, MISSING)) return 0;
    if (!strcmp(name, "vkCreateInstance")) return (void (*)(void))version;
    if (!strcmp(name, "vkEnumerateInstanceVersion")) return (void (*)(void))version;
    return 0;
}
"""
_ASK = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
look_up = library.vkGetInstanceProcAddr
look_up.restype, look_up.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_uint32))
layers = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_uint32), ctypes.c_void_p)
answers = []
for name, call in (("Version", kind), ("LayerProperties", layers)):
    address, value = look_up(None, b"vkEnumerateInstance" + name.encode()), ctypes.c_uint32(99)
    if not address:
        answers.append(None)
        continue
    more = [None] if call is layers else []
    assert call(address)(ctypes.byref(value), *more) == 0
    answers.append(value.value)
answers.append(bool(look_up(None, b"vkNoSuchThing")))
sys.stderr.write(repr(answers))
"""


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    path: Path = tmp_path_factory.mktemp("vulkan") / "libvulkan.so.1"
    MAKE.build_loader(path)
    return path


def answers(loader: Path, **environment: str) -> str:
    command = [sys.executable, "-c", _ASK, str(loader)]
    clean = {
        k: v for k, v in os.environ.items() if k not in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
    }
    done = subprocess.run(
        command, env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return done.stderr


@pytest.mark.parametrize(
    ("missing", "want"),
    [
        # What the driver answers is the driver's; layers it does not know are none.
        ("none", "[4210987, 0, False]"),
        # 1.4.0, where the driver does not say.
        ("vkEnumerateInstanceVersion", "[4210688, 0, False]"),
        # A driver that can make no instance here is none; the next one is tried.
        ("vkCreateInstance", "[None, None, False]"),
    ],
)
def test_the_vulkan_loader_passes_questions_on(
    loader: Path, tmp_path: Path, missing: str, want: str
) -> None:
    source = tmp_path / "driver.c"
    source.write_text(_DRIVER)
    (tmp_path / "lib").mkdir()
    library = tmp_path / "lib" / "libdriver.so"
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    define = f'-DMISSING="{missing}"'
    command = [compiler, "-shared", "-fPIC", define, str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    # By a whole path, from where the manifest lies, and by a name on the library path.
    for path in (str(library), "./lib/libdriver.so", "libdriver.so"):
        manifest = tmp_path / "icd.json"
        icd = {"library_path": path, "api_version": "1.4.0"}
        manifest.write_text(json.dumps({"file_format_version": "1.0.0", "ICD": icd}))
        for variable in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
            values = {variable: f"{manifest}:/no/such", "LD_LIBRARY_PATH": str(library.parent)}
            assert answers(loader, **values) == want


def test_the_vulkan_loader_without_a_driver_has_nothing_to_say(loader: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has NVIDIA's driver")
    assert answers(loader) == "[None, None, False]"
    assert answers(loader, VK_DRIVER_FILES="/no/such.json") == "[None, None, False]"


def test_vapoursynth_takes_its_version_from_the_loader(loader: Path, tmp_path: Path) -> None:
    # It loads libvulkan.so.1 by that name, so LD_LIBRARY_PATH is enough.
    code = (
        "import sys; from vapoursynth import core, Error\n"
        "try: core.vulkan_devices\n"
        "except Error as e: sys.stderr.write(str(e))"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(loader.parent)}
    environment["VK_DRIVER_FILES"] = str(tmp_path / "none.json")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    # Ours is there, but without a driver it has no functions.
    assert "vkEnumerateInstanceVersion" in done.stderr or done.stderr == ""


def assert_same_in_half(first: BasicVSR, second: BasicVSR) -> None:
    parameters, buffers = dict(second.named_parameters()), dict(second.named_buffers())
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter.half(), parameters[name].half()), name
    for name, buffer in first.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_half_weights_are_those_that_a_filter_computes_with(tmp_path: Path) -> None:
    source, target = small_checkpoint(tmp_path, channels=8, blocks=1), tmp_path / "half.safetensors"
    MAKE.halve_weights(source, target)
    first, second = (load_model(path, model=BasicVSR) for path in (source, target))
    assert_same_in_half(first, second)
    assert target.stat().st_size < 0.6 * source.stat().st_size
    # The file has less than float32.
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


@pytest.mark.usefixtures("real_weights")
def test_half_of_the_released_weights(tmp_path: Path) -> None:
    MAKE.halve_weights(MAKE._peer_folder() / "BasicVSR_REDS4.pth", tmp_path / "half.safetensors")
    second = load_model(tmp_path / "half.safetensors", model=BasicVSR)
    assert_same_in_half(load_model("reds4", model=BasicVSR), second)


@pytest.mark.usefixtures("real_weights")
def test_the_peer_comes_without_its_weights(tmp_path: Path) -> None:
    MAKE.copy_peer(tmp_path)
    names = {path.name for path in tmp_path.rglob("*")}
    assert {"basicvsr_arch.py", "LICENSE", "METADATA"} <= names
    assert not [name for name in names if name.endswith(".pth")]


def test_a_bundle_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "part").write_bytes(bytes(3000))
    assert MAKE.check_size(tmp_path) == 0
    monkeypatch.setattr(MAKE, "MOST_BYTES", 3000)
    assert MAKE.check_size(tmp_path) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "bundle: all files together must stay under 0 MB, got 0.0. Leave something out."
    )


def wheel(folder: Path, name: str) -> None:
    """The smallest wheel: one module."""
    information = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "here = True\n")
        file.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        file.writestr(
            f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{information}/RECORD", "")


def installed(bundle: Path, folder: Path) -> dict[str, str]:
    """Install a bundle as a machine without a network does; the environment it says to use."""
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PYTHON": sys.executable}
    script = f'eval "$(sh "{bundle}/install.sh" "{folder}")"; env -0'
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    done = subprocess.run(
        ["sh", "-eu", "-c", script], env={**clean, **nowhere}, capture_output=True, check=True
    )
    pairs = (line.partition("=") for line in done.stdout.decode().split("\0"))
    return {name: value for name, _, value in pairs if name}


def test_install_needs_no_network_and_says_what_to_set(tmp_path: Path) -> None:
    bundle, folder = tmp_path / "a bundle", tmp_path / "a folder"
    for name in ("wheels", "peer", "vulkan", "weights"):
        (bundle / name).mkdir(parents=True)
    wheel(bundle / "wheels", "first_part")
    wheel(bundle / "wheels", "second_part")
    (bundle / "peer" / "peer_part.py").write_text("")
    (bundle / "vulkan" / "libvulkan.so.1").write_bytes(b"")
    (bundle / "weights" / "basicvsr_reds_fp16.safetensors").write_bytes(b"")
    shutil.copy(FOLDER / "install.sh", bundle)
    environment = installed(bundle, folder)
    assert environment["PYTHONPATH"] == str(folder)
    assert environment["LD_LIBRARY_PATH"] == str(folder / "vulkan")
    assert environment["PATH"].startswith(f"{folder / 'bin'}:")
    code = "import first_part, second_part, peer_part"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert (folder / "basicvsr_reds_fp16.safetensors").exists()
    # And once more over itself.
    assert installed(bundle, folder)["PYTHONPATH"] == str(folder)


@pytest.mark.slow
@pytest.mark.usefixtures("real_weights")
def test_the_whole_bundle(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "0"]
    command = [*pip, "--timeout", "10", "--dest", str(tmp_path / "try"), "platformdirs"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no package index can be reached")
    bundle, folder = tmp_path / "bundle", tmp_path / "installed"
    assert MAKE.main(["--out", str(bundle)]) == 0
    environment = installed(bundle, folder)
    # Where the checkout is installed in place, its finder would come before every path.
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "def own(finder): return type(finder).__module__.startswith('_editable_')\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if not own(f)]\n"
    )
    weights = folder / "basicvsr_reds_fp16.safetensors"
    code = (
        "import cudnn, vs_vsr, vapoursynth as vs; from vapoursynth import core\n"
        f"assert vs.__file__.startswith({str(folder)!r}), vs.__file__\n"
        f"assert vs_vsr.__file__.startswith({str(folder)!r}), vs_vsr.__file__\n"
        "size = dict(width=32, height=24, format=vs.RGBS, length=2)\n"
        "clip = core.std.BlankClip(**size, color=[.2, .4, .6])\n"
        f"frame = core.vsr.BasicVSR(clip, weights={str(weights)!r}, device='cpu').get_frame(1)\n"
        "assert (frame.width, frame.height) == (128, 96) and abs(frame[0][40, 40] - .2) < .05\n"
    )
    # torch first: cuDNN is its. Not from the checkout, which Python would look into first.
    command = [sys.executable, "-c", f"import torch\n{code}"]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    options = ["--device", "cpu", "--quick", "--stages", "versions", "--weights", str(weights)]
    command = [sys.executable, "-m", "vs_vsr.bench.gpu", *options, "--out", str(tmp_path / "out")]
    subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["versions"]["state"] == "done"


def test_the_loader_hides_all_but_what_is_asked_for(loader: Path) -> None:
    library = ctypes.CDLL(str(loader))
    assert library.vkGetInstanceProcAddr
    with pytest.raises(AttributeError):
        _ = library.open_driver
